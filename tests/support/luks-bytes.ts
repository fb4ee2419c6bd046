/** LUKS1 and legacy AES without the library, by the system's ciphers and the format's description: what an encrypted image holds. */
import { createDecipheriv, createHash, pbkdf2Sync } from 'node:crypto';

const STRIPES = 4000;
const SLOT_ACTIVE = 0x00ac71f3;

/** A sector of 512 bytes in the clear. `host` and `guest`: its places in bytes. */
export type Decrypt = (sector: Uint8Array, host: number, guest: number) => Uint8Array;

/** Of an image with aes-256-xts-plain64 and sha256, which `bytes` hold from the LUKS header on. Undefined: the passphrase opens nothing. */
export function luksDecrypt(bytes: Uint8Array, passphrase: string): Decrypt | undefined {
  const key = luksKey(bytes, passphrase);
  return key && ((sector, host) => xts(key, sector, host / 512));
}

export function luksKey(bytes: Uint8Array, passphrase: string): Uint8Array | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const keyBytes = view.getUint32(108);
  for (let slot = 0; slot < 8; slot++) {
    const at = 208 + slot * 48;
    if (view.getUint32(at) !== SLOT_ACTIVE) continue;
    const salt = bytes.subarray(at + 8, at + 40);
    const slotKey = pbkdf2Sync(passphrase, salt, view.getUint32(at + 4), keyBytes, 'sha256');
    const place = view.getUint32(at + 40) * 512;
    const material = new Uint8Array(keyBytes * STRIPES);
    for (let done = 0; done < material.length; done += 512) {
      material.set(xts(slotKey, bytes.subarray(place + done, place + done + 512), done / 512), done);
    }
    const key = merge(material, keyBytes);
    const digest = pbkdf2Sync(key, bytes.subarray(132, 164), view.getUint32(164), 20, 'sha256');
    if (digest.equals(bytes.subarray(112, 132))) return key;
  }
  return undefined;
}

function xts(key: Uint8Array, sector: Uint8Array, number: number): Uint8Array {
  return createDecipheriv('aes-256-xts', key, numbered(number)).update(sector);
}

function numbered(number: number): Uint8Array {
  const iv = Buffer.alloc(16);
  iv.writeBigUInt64LE(BigInt(number));
  return iv;
}

/** The anti-forensic information splitter, backwards. */
function merge(material: Uint8Array, length: number): Uint8Array {
  let sum: Uint8Array = new Uint8Array(length);
  for (let stripe = 0; stripe < STRIPES; stripe++) {
    for (let i = 0; i < length; i++) sum[i] = (sum[i] ?? 0) ^ (material[stripe * length + i] ?? 0);
    if (stripe === STRIPES - 1) break;
    const digests: Uint8Array[] = [];
    for (let at = 0; at < length; at += 32) {
      const number = Buffer.alloc(4);
      number.writeUInt32BE(at / 32);
      digests.push(
        createHash('sha256')
          .update(number)
          .update(sum.subarray(at, at + 32))
          .digest(),
      );
    }
    sum = Buffer.concat(digests).subarray(0, length);
  }
  return sum;
}

/** Q-CRYPT-5. */
export function aesDecrypt(passphrase: string): Decrypt {
  const key = Buffer.alloc(16);
  Buffer.from(passphrase).copy(key);
  return (sector, _host, guest) =>
    createDecipheriv('aes-128-cbc', key, numbered(guest / 512))
      .setAutoPadding(false)
      .update(sector);
}

/** What an image's data need to be read; undefined: they are plain. */
export function qcow2Decrypt(bytes: Uint8Array, passphrase: string): Decrypt | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const method = view.getUint32(32);
  if (method === 1) return aesDecrypt(passphrase);
  if (method !== 2) return undefined;
  for (let at = view.getUint32(4) < 3 ? 72 : view.getUint32(100); ; ) {
    const type = view.getUint32(at);
    if (type === 0) return undefined;
    if (type === 0x0537be77) return luksDecrypt(bytes.subarray(Number(view.getBigUint64(at + 8))), passphrase);
    at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  }
}
