/** Encrypting a new image (Q-CRYPT-4, Q-CR-3). */
import { alignUp } from '../../bytes/align.ts';
import { BlockError } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import { algorithmsOf, sectorCipher } from '../../crypto/algorithms.ts';
import type { LuksStorage } from '../../crypto/luks.ts';
import { createLuks, DEFAULT_LUKS_PLAN, type LuksPlan, luksLength, planLuks } from '../../crypto/luks-new.ts';
import { cryptoOf } from '../../crypto/provider.ts';
import { passphraseOf } from '../../crypto/secrets.ts';
import { keySecretOf, luksStorage } from './encryption.ts';
import { allocateClusters } from './free-space.ts';
import type { Qcow2Image } from './image.ts';
import { type ImageCipher, luksCipher } from './image-cipher.ts';
import { MetadataClass } from './overlap.ts';
import { rewriteHeader } from './write-header.ts';

/** Creation options of encryption. */
export interface EncryptionOptions {
  readonly encryption: boolean | undefined;
  readonly 'encrypt.format': string | undefined;
  readonly 'encrypt.key-secret': string | undefined;
  readonly 'encrypt.cipher-alg': string | undefined;
  readonly 'encrypt.cipher-mode': string | undefined;
  readonly 'encrypt.ivgen-alg': string | undefined;
  readonly 'encrypt.ivgen-hash-alg': string | undefined;
  readonly 'encrypt.hash-alg': string | undefined;
  readonly 'encrypt.iter-time': number | undefined;
}

export interface EncryptionPlan {
  readonly luks: LuksPlan;
  /** Id of the passphrase. */
  readonly keySecret: string;
  /** Bytes of the header with all key material. */
  readonly length: number;
}

const LUKS_ONLY = ['cipher-alg', 'cipher-mode', 'ivgen-alg', 'ivgen-hash-alg', 'hash-alg', 'iter-time'] as const;

/** Undefined: no encryption is asked for. Throws BlockError for what cannot be. */
export function planEncryption(options: EncryptionOptions): EncryptionPlan | undefined {
  const bad = (message: string) => new BlockError('EINVAL', message);
  const given = options['encrypt.format'];
  if (options.encryption === true && given !== undefined) {
    throw bad("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  }
  const format = given ?? (options.encryption === true ? 'aes' : undefined);
  const further = LUKS_ONLY.find((name) => options[`encrypt.${name}`] !== undefined);
  if (format === undefined) {
    if (further === undefined && options['encrypt.key-secret'] === undefined) return undefined;
    throw bad("Parameter 'encrypt.format' is missing");
  }
  if (format === 'aes') {
    if (further !== undefined) throw bad(`Parameter 'encrypt.${further}' is unexpected`);
    throw new BlockError('ENOTSUP', 'AES-CBC encryption is not supported for new images; use encrypt.format=luks');
  }
  if (format !== 'luks') throw bad(`Parameter 'format' does not accept value '${format}'`);
  const keySecret = keySecretOf(options['encrypt.key-secret']);
  const defaults = DEFAULT_LUKS_PLAN;
  const luks = {
    cipherAlg: options['encrypt.cipher-alg'] ?? defaults.cipherAlg,
    cipherMode: options['encrypt.cipher-mode'] ?? defaults.cipherMode,
    ivgenAlg: options['encrypt.ivgen-alg'] ?? defaults.ivgenAlg,
    ivgenHashAlg: options['encrypt.ivgen-hash-alg'] ?? defaults.ivgenHashAlg,
    hashAlg: options['encrypt.hash-alg'] ?? defaults.hashAlg,
    iterTimeMs: options['encrypt.iter-time'] ?? defaults.iterTimeMs,
  };
  return { luks, keySecret, length: luksLength(planLuks(luks)) };
}

/** A LUKS header with its key material as bytes, and the cipher. Throws BlockError. */
export async function newEncryption(
  host: Host,
  { luks, keySecret, length }: EncryptionPlan,
  signal: AbortSignal | undefined,
): Promise<{ readonly bytes: Uint8Array; readonly cipher: ImageCipher }> {
  const bytes = new Uint8Array(length);
  const storage: LuksStorage = {
    length,
    read: async (at, target) => target.set(bytes.subarray(at, at + target.length)),
    write: async (at, source) => bytes.set(source, at),
    flush: async () => {},
  };
  const crypto = await cryptoOf(host, signal);
  const key = await createLuks(host, crypto, { plan: luks, passphrase: passphraseOf(host, keySecret), storage });
  return { bytes, cipher: luksCipher(await sectorCipher(crypto, algorithmsOf(planLuks(luks)), key)) };
}

/** Gives the image a LUKS header behind all that is there, durable before the image's own header names it. */
export async function addEncryption(
  image: Qcow2Image,
  { luks, keySecret, length }: EncryptionPlan,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { host, refcounts, layout, file, metadata } = image;
  const passphrase = passphraseOf(host, keySecret);
  const crypto = await cryptoOf(host, signal);
  const room = alignUp(length, layout.clusterSize);
  const offset = await allocateClusters(refcounts, room / layout.clusterSize);
  await file.writeZeroes(offset, room);
  metadata.add(MetadataClass.encryptionHeader, offset, length);
  image.extensions.encryption = { offset, length };
  const key = await createLuks(host, crypto, { plan: luks, passphrase, storage: luksStorage(image) });
  await refcounts.writeBack();
  await file.flush();
  await rewriteHeader(image);
  image.cipher = luksCipher(await sectorCipher(crypto, algorithmsOf(planLuks(luks)), key));
}
