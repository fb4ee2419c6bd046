/** The version line (T-GEN-6). */
import packageJson from '../../../package.json' with { type: 'json' };
import type { Dialect } from '../dialect.ts';

/** The release whose command line and output are reproduced; scripts compare it. */
const QEMU_RELEASE = '8.2.7';

/** `program`: the one whose command line is spoken in QEMU's dialect. */
export function versionText(dialect: Dialect, program: string): string {
  const ours = `diskwright ${packageJson.version}`;
  const first = dialect.qemu ? `${program} version ${QEMU_RELEASE} (${ours})` : ours;
  return `${first}\nCopyright (c) 2026 the diskwright contributors\n`;
}
