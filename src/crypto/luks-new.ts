/** Making LUKS1 volumes (Q-CRYPT-4). */
import { formatUuid, randomUuid } from '../bytes/uuid.ts';
import { BlockError } from '../core/errors.ts';
import type { Host } from '../core/host.ts';
import type { HostCrypto } from '../core/host-crypto.ts';
import { algorithmsOf, sectorCipher, usableHash } from './algorithms.ts';
import { ITERATIONS_MIN, iterationsFor } from './calibrate.ts';
import { encodeMaterial, keyDigest, type LuksStorage, requireWholeSectors, SLOT_ITERATIONS_MAX } from './luks.ts';
import { encodeLuksHeader, KEY_SLOTS, LUKS_ALIGN, type LuksHeader, materialBytes, SALT_LENGTH } from './luks-header.ts';
import { SECTOR } from './sector-cipher.ts';

/** Time for one guess at a passphrase, as other programs spend it. */
export const DEFAULT_ITER_TIME_MS = 2000;

/** What a new volume is like; names as in creation options. */
export interface LuksPlan {
  readonly cipherAlg: string;
  readonly cipherMode: string;
  readonly ivgenAlg: string;
  readonly ivgenHashAlg: string | undefined;
  readonly hashAlg: string;
  readonly iterTimeMs: number;
}

export const DEFAULT_LUKS_PLAN: LuksPlan = {
  cipherAlg: 'aes-256',
  cipherMode: 'xts',
  ivgenAlg: 'plain64',
  ivgenHashAlg: undefined,
  hashAlg: 'sha256',
  iterTimeMs: DEFAULT_ITER_TIME_MS,
};

/** Names that the options take, by option: those of QEMU, of which not all are implemented. */
const CHOICES: {
  readonly [K in 'cipherAlg' | 'cipherMode' | 'ivgenAlg' | 'ivgenHashAlg' | 'hashAlg']: readonly string[];
} = {
  cipherAlg: [
    ...['aes-128', 'aes-192', 'aes-256', 'des', '3des', 'cast5-128'],
    ...['serpent-128', 'serpent-192', 'serpent-256', 'twofish-128', 'twofish-192', 'twofish-256'],
  ],
  cipherMode: ['ecb', 'cbc', 'xts', 'ctr'],
  ivgenAlg: ['plain', 'plain64', 'essiv'],
  ivgenHashAlg: ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'],
  hashAlg: ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160'],
};
const OPTION_NAMES = {
  cipherAlg: 'cipher-alg',
  cipherMode: 'cipher-mode',
  ivgenAlg: 'ivgen-alg',
  ivgenHashAlg: 'ivgen-hash-alg',
  hashAlg: 'hash-alg',
} as const;

/** A header without keys. Throws BlockError EINVAL for names that there are none of, ENOTSUP for what is not implemented. */
export function planLuks(plan: LuksPlan): LuksHeader {
  for (const key of Object.keys(CHOICES) as (keyof typeof CHOICES)[]) {
    const value = plan[key];
    if (value === undefined || CHOICES[key].includes(value)) continue;
    throw new BlockError('EINVAL', `Parameter '${OPTION_NAMES[key]}' does not accept value '${value}'`);
  }
  const [cipher = '', bits = '64'] = plan.cipherAlg.split('-');
  const keyBytes = (Number(bits) / 8) * (plan.cipherMode === 'xts' ? 2 : 1);
  // The hash is only written where it is used.
  const ivHash = plan.ivgenHashAlg ?? (plan.ivgenAlg === 'essiv' ? 'sha256' : undefined);
  const room = materialBytes(keyBytes);
  const header: LuksHeader = {
    cipher,
    mode: `${plan.cipherMode}-${plan.ivgenAlg}${ivHash === undefined ? '' : `:${ivHash}`}`,
    hash: plan.hashAlg,
    payloadOffset: (LUKS_ALIGN + KEY_SLOTS * room) / SECTOR,
    keyBytes,
    digest: new Uint8Array(0),
    salt: new Uint8Array(0),
    iterations: 0,
    uuid: '',
    slots: Array.from({ length: KEY_SLOTS }, (_, index) => ({
      active: false,
      iterations: 0,
      salt: new Uint8Array(0),
      materialOffset: (LUKS_ALIGN + index * room) / SECTOR,
    })),
  };
  requireWholeSectors(algorithmsOf(header), header);
  return header;
}

/** Bytes of the header with all key material. */
export function luksLength({ payloadOffset }: LuksHeader): number {
  return payloadOffset * SECTOR;
}

export interface NewVolume {
  readonly plan: LuksPlan;
  readonly passphrase: Uint8Array;
  readonly storage: LuksStorage;
}

/**
 * Writes a header with a random key that the passphrase opens from slot 0, over storage that reads as zeroes; what is
 * written is not flushed. Resolves with the key. Throws BlockError.
 */
export async function createLuks(
  host: Host,
  crypto: HostCrypto,
  { plan, passphrase, storage }: NewVolume,
): Promise<Uint8Array> {
  const header = planLuks(plan);
  const random = (target: Uint8Array) => host.random(target);
  const key = randomBytes(random, header.keyBytes);
  // Tells what cannot be before any time is spent.
  await sectorCipher(crypto, algorithmsOf(header), key);
  const hash = usableHash(header.hash);
  const [slot] = header.slots;
  if (slot === undefined) throw new TypeError('a header has slots');
  const cost = { hash, length: header.keyBytes };
  slot.iterations = await iterationsFor(host, crypto, cost, plan.iterTimeMs, SLOT_ITERATIONS_MAX);
  slot.salt = randomBytes(random, SALT_LENGTH);
  slot.active = true;
  header.iterations = Math.max(ITERATIONS_MIN, Math.floor(slot.iterations / 8));
  header.salt = randomBytes(random, SALT_LENGTH);
  header.uuid = formatUuid(randomUuid(random));
  header.digest = await keyDigest(crypto, header, key);
  const material = await encodeMaterial(crypto, header, slot, { key, passphrase, random });
  await storage.write(slot.materialOffset * SECTOR, material);
  await storage.write(0, encodeLuksHeader(header));
  return key;
}

function randomBytes(random: (target: Uint8Array) => void, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  random(bytes);
  return bytes;
}
