/** Help and version of diskwright-nbd. */
import packageJson from '../../../package.json' with { type: 'json' };
import type { OptionSpec } from '../command-line/getopt.ts';
import { GROUPS } from './options.ts';

/** The release whose command line this is; scripts compare it. */
const QEMU_RELEASE = '8.2.7';
const COLUMN = 28;

export function versionText(program: string): string {
  const ours = `diskwright ${packageJson.version}`;
  return `${program} ${QEMU_RELEASE} (${ours})\nCopyright (c) 2026 the diskwright contributors\n`;
}

export function helpText(program: string): string {
  return [
    `Usage: ${program} [OPTIONS] FILE`,
    `  or:  ${program} -L [OPTIONS]`,
    'Serves disk images to NBD clients, or lists what an NBD server has',
    ...GROUPS.flatMap(({ title, options }) => [
      '',
      `${title}:`,
      ...options.filter(({ unavailable }) => !unavailable).map(line),
    ]),
    '',
  ].join('\n');
}

function line({ short, long, argument, help }: OptionSpec): string {
  // As other programs of this command line write it: -x, --export-name=NAME; -- without an equals sign before `type`.
  const value = argument === undefined ? '' : `${/^[A-Z]/.test(argument) ? '=' : ' '}${argument}`;
  const label = `  ${short === undefined ? '  ' : `-${short},`} --${long}${value}`;
  return label.length < COLUMN ? label.padEnd(COLUMN) + help : `${label}\n${' '.repeat(COLUMN)}${help}`;
}
