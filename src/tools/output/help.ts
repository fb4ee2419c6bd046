/** Help texts (T-GEN-6). */
import { DRIVERS } from '../../drivers.ts';
import { type Command, optionsOf } from '../command.ts';
import type { OptionSpec } from '../command-line/getopt.ts';
import { commands } from '../commands/index.ts';
import type { Dialect } from '../dialect.ts';
import { qemuDrivers } from '../qemu-drivers.ts';
import { versionText } from './version.ts';

/** Help on a command, or on the program; qemu-img knows only the latter. */
export async function helpText(dialect: Dialect, command: Command | undefined): Promise<string> {
  if (command !== undefined && !dialect.qemu) return commandHelp(dialect, command);
  const all = await Promise.all(commands.map((entry) => entry.load()));
  return dialect.qemu ? qemuHelp(dialect, all) : programHelp(dialect, all);
}

/** On one line: scripts search it for names. */
function supportedFormats(dialect: Dialect): string {
  const names = (dialect.qemu ? qemuDrivers(DRIVERS) : DRIVERS).map((driver) => driver.name);
  return `Supported formats: ${names.sort().join(' ')}\n`;
}

function programHelp(dialect: Dialect, all: readonly Command[]): string {
  const width = Math.max(...all.map(({ name }) => name.length));
  return [
    'Inspects, converts, checks, repairs, resizes and compares virtual disks.\n',
    `usage: ${dialect.name} COMMAND [OPTIONS] ...\n`,
    'Commands:',
    ...all.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    '',
    'Options before the command:',
    ...columns([
      ['-h, --help', 'this help'],
      ['-V, --version', 'the version'],
      ['-T, --trace TRACE', 'accepted, as in qemu-img; there is nothing to trace'],
    ]),
    '',
    `'${dialect.name} help COMMAND' tells more, with examples. Options and messages are those of qemu-img.`,
    '',
    supportedFormats(dialect),
  ].join('\n');
}

function commandHelp(dialect: Dialect, command: Command): string {
  const paragraphs = [
    `${command.summary}.\n`,
    `usage: ${dialect.name} ${command.name} [OPTIONS] ${command.operands}\n`,
    ...(command.description === undefined ? [] : [`${command.description}\n`]),
    'Options:',
    ...columns(shownOptions(command, dialect).map((spec) => [optionLabel(spec), spec.help])),
    '',
    'Examples:',
    ...command.examples.map((example) => `  ${dialect.name} ${example}`),
    '',
    supportedFormats(dialect),
  ];
  return paragraphs.join('\n');
}

function shownOptions(command: Command, dialect: Dialect): readonly OptionSpec[] {
  return optionsOf(command, dialect).filter((spec) => !spec.unavailable);
}

function optionLabel({ short, long, argument }: OptionSpec): string {
  const names = [short === undefined ? '' : `-${short}`, long === undefined ? '' : `--${long}`].filter(
    (name) => name !== '',
  );
  const label = short === undefined ? `    ${names.join(', ')}` : names.join(', ');
  return argument === undefined ? label : `${label} ${argument}`;
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([label]) => label.length));
  return rows.map(([label, text]) => `  ${label.padEnd(width)}  ${text}`);
}

function qemuHelp(dialect: Dialect, all: readonly Command[]): string {
  return [
    `${versionText(dialect, 'qemu-img')}usage: ${dialect.name} [standard options] command [command options]`,
    'QEMU disk image utility',
    '',
    "    '-h', '--help'       display this help and exit",
    "    '-V', '--version'    output version information and exit",
    "    '-T', '--trace'      [[enable=]<pattern>][,events=<file>][,file=<file>]",
    '                         specify tracing options',
    '',
    'Command syntax:',
    ...all.map(({ name, usage }) => `  ${name} ${usage}`),
    '',
    'Command parameters:',
    ...columns([
      ['filename', 'an image: a file, a PROTOCOL:name, or a json:{...} text'],
      ['fmt', 'an image format; of a source, probed if it is not given'],
      ['objectdef', 'a secret that images need, e.g. secret,id=s0,file=key.txt'],
      ['cache, src_cache', 'none, writeback, writethrough, directsync or unsafe, of the target and of the sources'],
      ['size', 'bytes, or with a suffix: k, M, G, T, P and E are powers of 1024'],
      ['options', 'name=value,...; -o help lists the names that the format has'],
      ['ofmt', 'form of the output: human or json'],
      ['-p', 'show progress'],
      ['-q', 'print errors only'],
      ['-U', 'open the image even though another program is writing to it'],
      ['-S', 'how many bytes of zeroes in a row are left out of the target (default 4k); 0: write everything'],
      ['-n', 'the target exists: do not create it'],
      ['-m, -W', 'convert: copies in parallel (default 8); write in any order'],
      ['-r', 'check: what to repair; convert: bytes per second'],
      ['-s', 'compare: strict, sizes and allocation must agree as well'],
    ]),
    '',
    supportedFormats(dialect),
  ].join('\n');
}
