/** The format of a new image, where the command line does not say. */
import type { Dialect } from '../dialect.ts';

const EXTENSIONS: Readonly<Record<string, string>> = {
  qcow: 'qcow',
  qcow2: 'qcow2',
  qed: 'qed',
  vdi: 'vdi',
  vhd: 'vpc',
  vhdx: 'vhdx',
  vmdk: 'vmdk',
};

/** As the name ends, in any case of letters; what says nothing is raw. qemu-img does not guess. */
export function guessFormat(dialect: Dialect, filename: string | undefined): string {
  const extension = /\.([^./]+)$/.exec(filename ?? '')?.[1]?.toLowerCase() ?? '';
  if (dialect.qemu || !Object.hasOwn(EXTENSIONS, extension)) return 'raw';
  return EXTENSIONS[extension] ?? 'raw';
}
