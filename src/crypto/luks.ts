/** LUKS1 volumes: unlocking with a passphrase, making new ones, and changing key slots (Q-CRYPT-2 to Q-CRYPT-4, Q-AM-5). */
import { BlockError } from '../core/errors.ts';
import type { HostCrypto } from '../core/host-crypto.ts';
import { type Algorithms, algorithmsOf, sectorCipher, usableHash } from './algorithms.ts';
import { merge, split } from './anti-forensic.ts';
import {
  DIGEST_LENGTH,
  decodeLuksHeader,
  type KeySlot,
  LUKS_HEADER_BYTES,
  type LuksHeader,
  STRIPES,
} from './luks-header.ts';
import { SECTOR } from './sector-cipher.ts';

/** Most iterations of PBKDF2 for a new key slot: five times as many as the usual two seconds of a fast machine. */
export const SLOT_ITERATIONS_MAX = 2 ** 25;
/**
 * Most iterations that one attempt to unlock takes, over all slots, which is as many as eight such slots take: minutes of
 * work. Headers may ask for 2^32 in each slot.
 */
const UNLOCK_ITERATIONS_MAX = 9 * SLOT_ITERATIONS_MAX;

/** Where a volume's header and key material lie. Offsets are bytes from the header's start. */
export interface LuksStorage {
  /** Bytes that belong to the header. */
  readonly length: number;
  read(offset: number, target: Uint8Array): Promise<void>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes what was written durable. */
  flush(): Promise<void>;
}

/** A volume whose header was read. */
export interface LuksVolume {
  readonly header: LuksHeader;
  readonly algorithms: Algorithms;
  readonly storage: LuksStorage;
}

/** Reads the header. Throws BlockError EINVAL or ENOTSUP for one that cannot be. */
export async function openLuks(storage: LuksStorage): Promise<LuksVolume> {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  await readInside(storage, 0, bytes);
  const header = decodeLuksHeader(bytes);
  return { header, algorithms: algorithmsOf(header), storage };
}

/** Material is encrypted by sectors. Throws BlockError ENOTSUP for keys whose material ends within one. */
export function requireWholeSectors({ cipher, cipherKeyBytes }: Algorithms, { keyBytes }: LuksHeader): void {
  if ((keyBytes * STRIPES) % SECTOR === 0) return;
  throw new BlockError('ENOTSUP', `Algorithm '${cipher}' with key size ${cipherKeyBytes} bytes not supported`);
}

function readInside(storage: LuksStorage, offset: number, target: Uint8Array): Promise<void> {
  if (offset + target.length > storage.length) {
    throw new BlockError('EINVAL', 'Request for data outside of extension header');
  }
  return storage.read(offset, target);
}

/** Where a key slot's passphrase is tried, how much work has been done. */
interface Effort {
  iterations: number;
}

/** The volume's key. Throws BlockError EINVAL when no slot opens with the passphrase, or too much work would be needed to know. */
export async function unlock(crypto: HostCrypto, volume: LuksVolume, passphrase: Uint8Array): Promise<Uint8Array> {
  const effort: Effort = { iterations: 0 };
  for (const index of volume.header.slots.keys()) {
    const key = await unlockSlot(crypto, volume, index, passphrase, effort);
    if (key !== undefined) return key;
  }
  throw new BlockError('EINVAL', 'Invalid password, cannot unlock any keyslot');
}

/** The volume's key as one slot has it; undefined: the slot is free, or the passphrase is not its own. */
export async function unlockSlot(
  crypto: HostCrypto,
  { header, algorithms, storage }: LuksVolume,
  index: number,
  passphrase: Uint8Array,
  effort: Effort = { iterations: 0 },
): Promise<Uint8Array | undefined> {
  const slot = header.slots[index];
  if (slot === undefined || !slot.active) return undefined;
  effort.iterations += slot.iterations + header.iterations;
  if (effort.iterations > UNLOCK_ITERATIONS_MAX) {
    const text = `Keyslot ${index} takes ${slot.iterations} iterations to try, the volume's key ${header.iterations}: too many`;
    throw new BlockError('EINVAL', text);
  }
  requireWholeSectors(algorithms, header);
  const hash = usableHash(algorithms.hash);
  const slotKey = await slotKeyOf(crypto, header, slot, passphrase);
  const material = new Uint8Array(header.keyBytes * STRIPES);
  await readInside(storage, slot.materialOffset * SECTOR, material);
  (await sectorCipher(crypto, algorithms, slotKey)).decrypt(material, 0);
  const key = merge({ crypto, hash }, material, header.keyBytes);
  const digest = await keyDigest(crypto, header, key);
  return digest.every((byte, at) => byte === header.digest[at]) ? key : undefined;
}

function slotKeyOf(crypto: HostCrypto, header: LuksHeader, slot: KeySlot, passphrase: Uint8Array): Promise<Uint8Array> {
  const { salt, iterations } = slot;
  const hash = usableHash(header.hash);
  return crypto.pbkdf2({ hash, password: passphrase, salt, iterations, length: header.keyBytes });
}

/** What tells the right key from others. */
export function keyDigest(crypto: HostCrypto, header: LuksHeader, key: Uint8Array): Promise<Uint8Array> {
  const { salt, iterations } = header;
  return crypto.pbkdf2({ hash: usableHash(header.hash), password: key, salt, iterations, length: DIGEST_LENGTH });
}

/** The volume's key as a slot stores it, opened by a passphrase; the slot's salt and iterations are set. */
export async function encodeMaterial(
  crypto: HostCrypto,
  header: LuksHeader,
  slot: KeySlot,
  { key, passphrase, random }: SlotSecrets,
): Promise<Uint8Array> {
  const hash = usableHash(header.hash);
  const slotKey = await slotKeyOf(crypto, header, slot, passphrase);
  const material = split({ crypto, hash }, key, STRIPES, random);
  return (await sectorCipher(crypto, algorithmsOf(header), slotKey)).encrypt(material, 0);
}

export interface SlotSecrets {
  /** The volume's. */
  readonly key: Uint8Array;
  readonly passphrase: Uint8Array;
  readonly random: (target: Uint8Array) => void;
}
