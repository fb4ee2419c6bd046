/** Copying the beginning of a disk into a new image (T-DD-1). */
import { isZero } from '../bytes/zero.ts';
import { createImage } from '../core/create.ts';
import type { Disk } from '../core/disk.ts';
import type { Progress } from '../core/driver.ts';
import { addContext, BlockError, withErrno } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import { destinationFor } from './destination.ts';

/** Options of {@link copyBlocks}. */
export interface DdOptions {
  readonly graph: Graph;
  /** Open; it stays open. */
  readonly input: Disk;
  readonly output: { readonly filename: string; readonly format: string };
  /** Bytes; default 512. */
  readonly blockSize?: number;
  /** Blocks from the start of the input, skipped ones included. Default: all. */
  readonly count?: number | undefined;
  /** Blocks at the start of the input that are left out. */
  readonly skip?: number;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: Progress | undefined;
}

/** What {@link copyBlocks} has to say. */
export interface DdResult {
  /** The skipped part reaches past the end of what was asked for: the output is empty. */
  readonly skippedPastEnd: boolean;
}

/** Longest read and write, bytes. */
const CHUNK = 2 << 20;

/** Copies. The output is always made anew, and gets its name when it is complete. */
export async function dd(options: DdOptions): Promise<DdResult> {
  const { graph, input, output, blockSize = 512, count, skip = 0, signal } = options;
  const end = count === undefined ? input.length : Math.min(input.length, count * blockSize);
  const start = skip * blockSize;
  const size = Math.max(0, end - start);
  const context = `${output.filename}: error while creating output image`;
  const destination = await destinationFor(graph, output.filename).catch((error: unknown) => {
    throw addContext(context, error);
  });
  try {
    const { format } = output;
    const made = createImage(graph, { filename: destination.workName, format, size, noFlush: true, signal });
    await made.catch((error: unknown) => {
      throw error instanceof BlockError ? addContext(context, destination.rename(error)) : error;
    });
    const disk = await graph.open(destination.workName, { format, writable: true, cache: 'unsafe', signal });
    try {
      await copy(options, disk, start, size);
    } catch (error) {
      await disk.close().catch(() => {});
      throw error;
    }
    await disk.close();
    await destination.commit();
  } catch (error) {
    await destination.abandon();
    throw destination.rename(error);
  }
  return { skippedPastEnd: start > end };
}

async function copy({ input, signal, progress }: DdOptions, target: Disk, start: number, size: number): Promise<void> {
  const buffer = new Uint8Array(Math.min(CHUNK, size));
  const sparse = target.zeroInit();
  progress?.(0, size);
  for (let done = 0; done < size; done += CHUNK) {
    signal?.throwIfAborted();
    const piece = buffer.subarray(0, Math.min(CHUNK, size - done));
    await input.read(start + done, piece).catch((error: unknown) => {
      throw failure('error while reading from input image file', error);
    });
    if (!sparse || !isZero(piece)) {
      await target.write(done, piece).catch((error: unknown) => {
        throw failure('error while writing to output image file', error);
      });
    }
    progress?.(done + piece.length, size);
  }
}

function failure(text: string, error: unknown): unknown {
  return error instanceof BlockError ? withErrno(error.code, text, { cause: error }) : error;
}
