/** `--object secret` (T-GEN-13): its content from `data` or `file`, raw or base64, maybe encrypted by another secret. */
import { readFileSync } from 'node:fs';
import { codeOf, errorText } from '../../core/errors.ts';
import { Failure } from '../failure.ts';

/** Properties, and their types as help lists them. */
export const SECRET_PROPERTIES = {
  data: 'string',
  file: 'string',
  format: 'QCryptoSecretFormat',
  iv: 'string',
  keyid: 'string',
} as const;

type Properties = Readonly<Record<string, string>>;

const KEY_BYTES = 32;
const AES_BLOCK = 16;

/** `known`: secrets by id, of which one may be the key. Throws Failure. */
export function readSecret(properties: Properties, known: ReadonlyMap<string, Uint8Array>): Uint8Array {
  for (const key of Object.keys(properties)) {
    if (!Object.hasOwn(SECRET_PROPERTIES, key)) throw new Failure(`Parameter '${key}' is unexpected`);
  }
  const { data, file, format = 'raw', keyid, iv } = properties;
  if (format !== 'raw' && format !== 'base64') {
    throw new Failure(`Parameter 'format' does not accept value '${format}'`);
  }
  if (data !== undefined && file !== undefined) throw new Failure("'file' and 'data' are mutually exclusive");
  if (data === undefined && file === undefined) throw new Failure("Either 'file' or 'data' must be provided");
  const content = data === undefined ? readFile(file ?? '') : Buffer.from(data);
  if (keyid === undefined) return format === 'base64' ? decodeBase64(content.toString('latin1')) : content;
  const key = known.get(keyid);
  if (key === undefined) throw new Failure(`No secret with id '${keyid}'`);
  return decrypt(format === 'base64' ? decodeBase64(content.toString('latin1')) : content, key, iv);
}

function readFile(name: string): Buffer {
  try {
    return readFileSync(name);
  } catch (error) {
    const code = codeOf(error);
    const what = code === 'EISDIR' ? 'Error reading file' : 'Failed to open file';
    throw new Failure(`Unable to read ${name}: ${what} “${name}”: ${errorText(code)}`);
  }
}

/** Characters that are left over at the end, without making a group of four, say nothing. */
function decodeBase64(text: string): Buffer {
  if (!/^[A-Za-z0-9+/=\r\n]*$/.test(text)) throw new Failure('Base64 data contains invalid characters');
  const characters = text.replaceAll(/[\r\n]/g, '');
  return Buffer.from(characters.slice(0, characters.length - (characters.length % 4)), 'base64');
}

/** AES-256-CBC with padding (PKCS #7). */
function decrypt(content: Buffer, key: Uint8Array, ivText: string | undefined): Uint8Array {
  if (key.length !== KEY_BYTES) throw new Failure(`Key should be ${KEY_BYTES} bytes in length`);
  if (ivText === undefined) throw new Failure('IV is required to decrypt secret');
  const iv = decodeBase64(ivText);
  if (iv.length !== AES_BLOCK) throw new Failure(`IV should be ${AES_BLOCK} bytes in length not ${iv.length}`);
  if (content.length % AES_BLOCK !== 0) {
    throw new Failure(`Length ${content.length} must be a multiple of block size ${AES_BLOCK}`);
  }
  if (content.length === 0) return content;
  // Not imported, as it takes milliseconds to load.
  const { createDecipheriv } = process.getBuiltinModule('node:crypto');
  const decipher = createDecipheriv('aes-256-cbc', key, iv).setAutoPadding(false);
  const plain = Buffer.concat([decipher.update(content), decipher.final()]);
  const padding = plain.at(-1) ?? 0;
  if (padding > AES_BLOCK) {
    throw new Failure(`Incorrect number of padding bytes (${padding}) found on decrypted data`);
  }
  return plain.subarray(0, plain.length - padding);
}
