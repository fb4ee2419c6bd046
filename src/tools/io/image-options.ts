/** How an image is opened: the options that the command line and `open` share (T-IO-1, T-OPEN-1). */
import { type CacheMode, type DiscardMode, discardMode } from '../../core/cache.ts';
import type { OpenOptions } from '../../core/disk.ts';
import type { OptionTree } from '../../core/options.ts';
import { cacheMode, keyValues } from '../command-line/arguments.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { AIO_MODES } from '../native-aio.ts';
import type { ImageSource } from './session.ts';

export class ImageOptions {
  readOnly = false;
  snapshot = false;
  copyOnRead = false;
  forceShare = false;
  format: string | undefined;
  /** Every write is durable before it ends, unless another mode is asked for (T-IO-2). */
  cache: CacheMode = 'writethrough';
  discard: DiscardMode = 'unmap';
  #nativeAio = false;

  /** T-GEN-14. Throws Failure. */
  setCache(text: string): void {
    this.cache = cacheMode('cache', text);
  }

  setDiscard(text: string): void {
    const mode = discardMode(text);
    if (mode === undefined) throw new Failure(`Invalid discard option: ${text}`);
    this.discard = mode;
  }

  /** Requests go our way whichever it is. */
  setAio(text: string): void {
    if (!AIO_MODES.includes(text)) throw new Failure(`Invalid aio option: ${text}`);
    this.#nativeAio = text === 'native';
  }

  /** `shownName`: what messages call it. */
  source(filename: string | undefined, tree: OptionTree, shownName: string | undefined): ImageSource {
    const options: OpenOptions = {
      writable: !this.readOnly,
      snapshot: this.snapshot,
      copyOnRead: this.copyOnRead,
      forceShare: this.forceShare,
      format: this.format,
      cache: this.cache,
      discard: this.discard,
    };
    return { filename, tree, options, shownName, nativeAio: this.#nativeAio };
  }
}

/** An option string as a tree. */
export function optionString({ messages }: Context, text: string): OptionTree {
  return Object.fromEntries(keyValues(text, undefined, (message, hint) => messages.warning(message, hint)));
}
