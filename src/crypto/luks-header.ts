/** The header of a LUKS1 volume (Q-CRYPT-2): its bytes, and what they may be. Wordings are those of qemu-img. */
import { alignUp } from '../bytes/align.ts';
import { viewOf } from '../bytes/big-endian.ts';
import { BlockError } from '../core/errors.ts';
import { SECTOR } from './sector-cipher.ts';

export const LUKS_HEADER_BYTES = 592;
export const KEY_SLOTS = 8;
/** Copies that a key is spread over. */
export const STRIPES = 4000;
export const DIGEST_LENGTH = 20;
export const SALT_LENGTH = 32;
/** What lies in a header begins at multiples of this many bytes, the first key slot at one. */
export const LUKS_ALIGN = 4096;

const MAGIC = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];
const ACTIVE = 0x00ac71f3;
const FREE = 0x0000dead;
const SLOTS_AT = 208;
const SLOT_BYTES = 48;
const NAME_BYTES = 32;
const UUID_BYTES = 40;

export interface KeySlot {
  active: boolean;
  iterations: number;
  salt: Uint8Array;
  /** Sectors from the header's start. */
  materialOffset: number;
}

export interface LuksHeader {
  /** `aes`. */
  cipher: string;
  /** `xts-plain64`. */
  mode: string;
  hash: string;
  /** Sectors from the header's start. */
  payloadOffset: number;
  keyBytes: number;
  digest: Uint8Array;
  salt: Uint8Array;
  iterations: number;
  uuid: string;
  readonly slots: readonly KeySlot[];
}

/** Bytes that the material of a key takes, whole blocks. */
export function materialBytes(keyBytes: number): number {
  return alignUp(keyBytes * STRIPES, LUKS_ALIGN);
}

function bad(message: string): BlockError {
  return new BlockError('EINVAL', message);
}

/** `bytes`: {@link LUKS_HEADER_BYTES}. Throws BlockError EINVAL, ENOTSUP for another version. */
export function decodeLuksHeader(bytes: Uint8Array): LuksHeader {
  const view = viewOf(bytes);
  if (!MAGIC.every((byte, index) => bytes[index] === byte)) throw bad('Volume is not in LUKS format');
  const version = view.getUint16(6);
  if (version !== 1) throw new BlockError('ENOTSUP', `LUKS version ${version} is not supported`);
  const header = {
    cipher: text(bytes, 8, 'cipher name'),
    mode: text(bytes, 40, 'cipher mode'),
    hash: text(bytes, 72, 'hash spec'),
    payloadOffset: view.getUint32(104),
    keyBytes: view.getUint32(108),
    digest: bytes.slice(112, 112 + DIGEST_LENGTH),
    salt: bytes.slice(132, 132 + SALT_LENGTH),
    iterations: view.getUint32(164),
    uuid: latin(bytes.subarray(168, 168 + UUID_BYTES)),
    slots: Array.from({ length: KEY_SLOTS }, (_, index) => {
      const at = SLOTS_AT + index * SLOT_BYTES;
      return {
        active: view.getUint32(at) === ACTIVE,
        iterations: view.getUint32(at + 4),
        salt: bytes.slice(at + 8, at + 8 + SALT_LENGTH),
        materialOffset: view.getUint32(at + 40),
      };
    }),
  };
  checkPlaces(header, view);
  return header;
}

function text(bytes: Uint8Array, at: number, what: string): string {
  const field = bytes.subarray(at, at + NAME_BYTES);
  if (!field.includes(0)) throw bad(`LUKS header ${what} is not NUL terminated`);
  return latin(field);
}

/** As far as the first NUL. */
function latin(field: Uint8Array): string {
  const end = field.indexOf(0);
  return String.fromCharCode(...(end < 0 ? field : field.subarray(0, end)));
}

/** Nothing lies over anything else, and no count is zero. */
function checkPlaces(header: LuksHeader, view: DataView): void {
  const { payloadOffset, slots } = header;
  const first = LUKS_ALIGN / SECTOR;
  if (payloadOffset < first) throw bad('LUKS payload is overlapping with the header');
  if (header.iterations === 0) throw bad('LUKS key iteration count is zero');
  const length = materialBytes(header.keyBytes) / SECTOR;
  for (const [index, { active, iterations, materialOffset: from }] of slots.entries()) {
    const at = SLOTS_AT + index * SLOT_BYTES;
    const stripes = view.getUint32(at + 44);
    if (stripes !== STRIPES) throw bad(`Keyslot ${index} is corrupted (stripes ${stripes} != ${STRIPES})`);
    if (!active && view.getUint32(at) !== FREE) throw bad(`Keyslot ${index} state (active/disable) is corrupted`);
    if (active && iterations === 0) throw bad(`Keyslot ${index} iteration count is zero`);
    if (from < first) throw bad(`Keyslot ${index} is overlapping with the LUKS header`);
    if (from + length > payloadOffset) throw bad(`Keyslot ${index} is overlapping with the encrypted payload`);
    const other = slots.findIndex(
      ({ materialOffset }, number) =>
        number > index && from < materialOffset + length && materialOffset < from + length,
    );
    if (other >= 0) throw bad(`Keyslots ${index} and ${other} are overlapping in the header`);
  }
}

export function encodeLuksHeader(header: LuksHeader): Uint8Array {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  const view = viewOf(bytes);
  const put = (at: number, value: string) => bytes.set(new TextEncoder().encode(value), at);
  bytes.set(MAGIC);
  view.setUint16(6, 1);
  put(8, header.cipher);
  put(40, header.mode);
  put(72, header.hash);
  view.setUint32(104, header.payloadOffset);
  view.setUint32(108, header.keyBytes);
  bytes.set(header.digest, 112);
  bytes.set(header.salt, 132);
  view.setUint32(164, header.iterations);
  put(168, header.uuid);
  for (const [index, { active, iterations, salt, materialOffset }] of header.slots.entries()) {
    const at = SLOTS_AT + index * SLOT_BYTES;
    view.setUint32(at, active ? ACTIVE : FREE);
    view.setUint32(at + 4, iterations);
    bytes.set(salt, at + 8);
    view.setUint32(at + 40, materialOffset);
    view.setUint32(at + 44, STRIPES);
  }
  return bytes;
}
