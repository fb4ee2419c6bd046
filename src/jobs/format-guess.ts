/** The format of a new image, where nobody says. */

const EXTENSIONS: Readonly<Record<string, string>> = {
  qcow: 'qcow',
  qcow2: 'qcow2',
  qed: 'qed',
  vdi: 'vdi',
  vhd: 'vpc',
  vhdx: 'vhdx',
  vmdk: 'vmdk',
};

/** As the name ends, in any case of letters; what says nothing is raw. The format need not be one that we have. */
export function formatOfName(filename: string): string {
  const extension = /\.([^./]+)$/.exec(filename)?.[1]?.toLowerCase() ?? '';
  return Object.hasOwn(EXTENSIONS, extension) ? (EXTENSIONS[extension] ?? 'raw') : 'raw';
}
