/** Pieces of work that are planned one at a time and done several at a time. */

export interface ParallelWork<P> {
  /** Most pieces under way at a time. */
  readonly parallel: number;
  /** The next piece; undefined at the end. Never called before it has answered. */
  next(): Promise<P | undefined>;
  /** Does it. `buffer` is the worker's own, made at the first call. */
  work(piece: P, buffer: () => Uint8Array): Promise<void>;
  /** Length of a buffer, bytes. */
  readonly bufferLength: number;
  readonly signal?: AbortSignal | undefined;
}

/** Does all pieces, begun in order. After a failure no more are begun; when this ends, in whatever way, none is under way. */
export async function inParallel<P>(options: ParallelWork<P>): Promise<void> {
  let planning: Promise<unknown> = Promise.resolve();
  let failure: { readonly error: unknown } | undefined;
  const next = () => {
    const planned = planning.then(() => options.next());
    planning = planned.catch(() => {});
    return planned;
  };
  const worker = async () => {
    let own: Uint8Array | undefined;
    const buffer = () => {
      own ??= new Uint8Array(options.bufferLength);
      return own;
    };
    try {
      while (failure === undefined) {
        options.signal?.throwIfAborted();
        const piece = await next();
        if (piece === undefined) return;
        if (failure === undefined) await options.work(piece, buffer);
      }
    } catch (error) {
      failure ??= { error };
    }
  };
  await Promise.all(Array.from({ length: options.parallel }, worker));
  if (failure !== undefined) throw failure.error;
}
