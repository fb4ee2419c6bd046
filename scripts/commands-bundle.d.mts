/** Statements that leave a function `$chunk(name)`. Throws Error for statements of modules that esbuild does not print. */
export function bundleOfChunks(chunks: readonly { readonly path: string; readonly text: string }[]): string;
