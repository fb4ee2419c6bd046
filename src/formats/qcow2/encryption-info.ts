/** What `info` tells of an image's encryption (Q-INFO-1); offsets are bytes from the LUKS header's start. */
import type { SpecificData } from '../../core/driver.ts';
import type { LuksVolume } from '../../crypto/luks.ts';
import { type KeySlot, STRIPES } from '../../crypto/luks-header.ts';
import { SECTOR } from '../../crypto/sector-cipher.ts';

/** `volume`: of LUKS; undefined: legacy AES. */
export function encryptionInfo(volume: LuksVolume | undefined): SpecificData {
  if (volume === undefined) return { format: 'aes' };
  const { header, algorithms } = volume;
  return {
    'ivgen-alg': algorithms.ivgen,
    'hash-alg': algorithms.hash,
    'cipher-alg': `${algorithms.cipher}-${algorithms.cipherKeyBytes * 8}`,
    uuid: header.uuid,
    ...(algorithms.ivgen === 'essiv' && algorithms.ivHash !== undefined ? { 'ivgen-hash-alg': algorithms.ivHash } : {}),
    format: 'luks',
    'cipher-mode': algorithms.mode,
    slots: header.slots.map(slotInfo),
    'payload-offset': header.payloadOffset * SECTOR,
    'master-key-iters': header.iterations,
  };
}

function slotInfo({ active, iterations, materialOffset }: KeySlot): SpecificData {
  const place = { active, 'key-offset': materialOffset * SECTOR };
  return active ? { ...place, iters: iterations, stripes: STRIPES } : place;
}
