import type { BuildResult, Plugin } from 'esbuild';

/** For a build of the commands: what to add to its entry points, and a plugin. `parts`: lists of modules, by name. */
export function lateParts(
  root: string,
  parts: Readonly<Record<string, readonly string[]>>,
): { readonly entryPoints: Readonly<Record<string, string>>; readonly plugin: Plugin };

/** The text that bin/launch.js starts from. Throws Error for statements of modules that esbuild does not print. */
export function bundleOf(
  result: Chunks | BuildResult<{ write: false; metafile: true }>,
  minify: (statements: string) => Promise<string>,
): Promise<string>;

/** What is used of a build's result. */
interface Chunks {
  readonly outputFiles: readonly { readonly path: string; readonly text: string }[];
  readonly metafile: { readonly outputs: Readonly<Record<string, Output>> };
}

interface Output {
  readonly entryPoint?: string;
  readonly imports: readonly { readonly path: string; readonly external?: boolean }[];
}
