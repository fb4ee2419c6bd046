/** Guest data that are stored encrypted (Q-WR-8): in pieces, while one is on its way to or from the file another is worked on. */
import type { Qcow2Image } from './image.ts';
import type { ImageCipher } from './image-cipher.ts';

/** Most clusters of a piece, and bytes of one, so that the event loop can turn between two. */
const CLUSTERS_MAX = 32;
const PIECE_MAX = 1 << 20;
/** Longer requests are not answered at once. */
const NOW_MAX = 128 << 10;

/** Where data are stored, and where the guest sees them; multiples of 512. */
interface Place {
  readonly host: number;
  readonly guest: number;
}

function pieceBytes({ layout }: Qcow2Image): number {
  return Math.min(PIECE_MAX, CLUSTERS_MAX * layout.clusterSize);
}

export async function readEncrypted(
  image: Qcow2Image,
  cipher: ImageCipher,
  { host, guest }: Place,
  target: Uint8Array,
): Promise<void> {
  const { data } = image;
  const step = pieceBytes(image);
  const read = async (at: number) => {
    const piece = target.subarray(at, at + step);
    if (!data.tryReadNow(host + at, piece)) await data.read(host + at, piece);
  };
  let reading = read(0);
  for (let at = 0; at < target.length; at += step) {
    await reading;
    if (at + step < target.length) {
      reading = read(at + step);
      // It is waited for in its turn.
      reading.catch(() => {});
    }
    cipher.decrypt(target.subarray(at, at + step), host + at, guest + at);
  }
}

export function readEncryptedNow(
  { data }: Qcow2Image,
  cipher: ImageCipher,
  { host, guest }: Place,
  target: Uint8Array,
): boolean {
  if (target.length > NOW_MAX || !data.tryReadNow(host, target)) return false;
  cipher.decrypt(target, host, guest);
  return true;
}

export async function writeEncrypted(
  image: Qcow2Image,
  cipher: ImageCipher,
  { host, guest }: Place,
  source: Uint8Array,
): Promise<void> {
  const { data } = image;
  const step = pieceBytes(image);
  let writing: Promise<void> | undefined;
  for (let at = 0; at < source.length; at += step) {
    const stored = cipher.encrypt(source.subarray(at, at + step), host + at, guest + at);
    await writing;
    writing = data.tryWriteNow(host + at, stored) ? undefined : data.write(host + at, stored);
    writing?.catch(() => {});
  }
  await writing;
}

export function writeEncryptedNow(
  { data }: Qcow2Image,
  cipher: ImageCipher,
  { host, guest }: Place,
  source: Uint8Array,
): boolean {
  return source.length <= NOW_MAX && data.tryWriteNow(host, cipher.encrypt(source, host, guest));
}
