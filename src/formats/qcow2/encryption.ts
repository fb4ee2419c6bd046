/** Opening encrypted images (Q-OPT-5, Q-CRYPT). */
import type { OpenContext } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { sectorCipher } from '../../crypto/algorithms.ts';
import { type LuksStorage, openLuks, unlock } from '../../crypto/luks.ts';
import { cryptoOf } from '../../crypto/provider.ts';
import { passphraseOf } from '../../crypto/secrets.ts';
import { CryptMethod, type Qcow2Header } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { aesCipher, luksCipher } from './image-cipher.ts';
import { writeMetadata } from './metadata-io.ts';
import type { Qcow2Options } from './options.ts';
import { MetadataClass } from './overlap.ts';

/** What options may say of an image with this header. Throws BlockError EINVAL. */
export function checkEncryption({ options, noIO }: OpenContext<Qcow2Options>, { cryptMethod }: Qcow2Header): void {
  const given = options['encrypt.format'];
  if (cryptMethod === CryptMethod.none) {
    if (given === undefined) return;
    throw new BlockError('EINVAL', `No encryption in image header, but options specified format '${given}'`);
  }
  if (cryptMethod > CryptMethod.luks) throw new BlockError('EINVAL', `Unsupported encryption method ${cryptMethod}`);
  const format = cryptMethod === CryptMethod.aes ? 'aes' : 'luks';
  if (given !== undefined && given !== format) {
    const text = `Header reported '${format}' encryption format but options specify '${given}'`;
    throw new BlockError('EINVAL', text);
  }
  if (!noIO) keySecretOf(options['encrypt.key-secret']);
}

/** Throws BlockError EINVAL where no secret is named. */
export function keySecretOf(id: string | undefined): string {
  if (id === undefined) throw new BlockError('EINVAL', "Parameter 'encrypt.key-secret' is required for cipher");
  return id;
}

/** Reads the LUKS header, and gets the key unless only information is wanted. Throws BlockError. */
export async function openEncryption(context: OpenContext<Qcow2Options>, image: Qcow2Image): Promise<void> {
  const { host, options, noIO } = context;
  const { cryptMethod } = image.header;
  if (cryptMethod === CryptMethod.none) return;
  if (cryptMethod === CryptMethod.luks) image.luks = await openLuks(luksStorage(image));
  if (noIO) return;
  image.keySecret = keySecretOf(options['encrypt.key-secret']);
  const passphrase = passphraseOf(host, image.keySecret);
  const crypto = await cryptoOf(host, context.signal);
  if (image.luks === undefined) {
    image.cipher = aesCipher(crypto, passphrase);
    return;
  }
  const key = await unlock(crypto, image.luks, passphrase);
  image.cipher = luksCipher(await sectorCipher(crypto, image.luks.algorithms, key));
}

/** The part of the image file that the header names for LUKS. */
export function luksStorage(image: Qcow2Image): LuksStorage {
  const { file, extensions } = image;
  const { offset = 0, length = 0 } = extensions.encryption ?? {};
  const start = Number(offset);
  return {
    length: Number(length),
    async read(at, target) {
      try {
        if (!Number.isSafeInteger(start + at + target.length))
          throw new BlockError('EIO', 'The header is past all files');
        await file.read(start + at, target);
      } catch (error) {
        throw withErrno(codeOf(error), 'Could not read encryption header', { cause: error, node: image.node });
      }
    },
    write: (at, bytes) => writeMetadata(image, MetadataClass.encryptionHeader, start + at, bytes),
    flush: () => file.flush(),
  };
}
