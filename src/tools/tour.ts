/**
 * The guided tour (`npm start` without arguments): makes a file system with files in it, puts it in a VDI and takes
 * it through the commands, printing each and its real output. All in a temporary folder that is removed at the end.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fat16Image } from './tour/fat16.ts';

const BLOCK = 1 << 20;
/** Where a VDI header keeps the number of allocated blocks (V-1). */
const BLOCKS_ALLOCATED = 0x184;

interface Step {
  readonly say: string;
  /** The command as typed, words split at blanks. */
  readonly command: string;
  /** Its exit status; a tour that gets another ends in failure. Default 0. */
  readonly exits?: number;
  /** Left out where the program is not installed. */
  readonly optional?: boolean;
}

const commands = dirname(createRequire(import.meta.url).resolve('../bin/diskwright'));
const bold = process.stdout.isTTY ? (text: string) => `\u001b[1m${text}\u001b[0m` : (text: string) => text;
const say = (text: string) => process.stdout.write(`\n${text}\n`);

function run(folder: string, step: Step): void {
  const [program = '', ...args] = step.command.split(' ');
  const ours = program.startsWith('diskwright');
  if (!ours && !isInstalled(program)) {
    if (step.optional) return;
    throw new Error(`${program} is not installed`);
  }
  say(step.say);
  process.stdout.write(`${bold(`$ ${step.command}`)}\n`);
  const full = ours ? ([process.execPath, [join(commands, program), ...args]] as const) : ([program, args] as const);
  // One stream, so that findings and results stay in the order they were made.
  const { status, error } = spawnSync(full[0], full[1], { cwd: folder, stdio: ['ignore', 1, 1] });
  if (error !== undefined) throw error;
  const expected = step.exits ?? 0;
  if (status !== expected) throw new Error(`"${step.command}" exited ${status} where ${expected} was expected`);
  if (expected !== 0) process.stdout.write(`(exit status ${status})\n`);
}

function isInstalled(program: string): boolean {
  return spawnSync(program, ['-V'], { stdio: 'ignore' }).error === undefined;
}

const FILES: Readonly<Record<string, string>> = {
  'README.TXT': 'What was written here is read back, byte for byte.\n',
  'NUMBERS.TXT': Array.from({ length: 200_000 }, (_, i) => `line ${i + 1}\n`).join(''),
};

/** A disk with a file system: ext4 by Debian's mke2fs, or else a FAT16 of our own making. */
function makeFileSystem(folder: string): { name: string; check: Step } {
  const raw = join(folder, 'files.raw');
  if (isInstalled('mke2fs')) {
    const tree = join(folder, 'tree');
    mkdirSync(tree);
    for (const [name, text] of Object.entries(FILES)) writeFileSync(join(tree, name), text);
    const made = spawnSync('mke2fs', ['-q', '-t', 'ext4', '-d', tree, raw, '64M'], { stdio: ['ignore', 'ignore', 2] });
    if (made.status === 0) {
      const check = {
        say: 'Nothing was lost: the file system inside is clean.',
        command: 'e2fsck -fn back.raw',
        optional: true,
      };
      return { name: 'ext4', check };
    }
  }
  const files = Object.entries(FILES).map(([name, text]) => ({ name, content: new TextEncoder().encode(text) }));
  writeFileSync(raw, fat16Image(16 * BLOCK, files));
  const check = {
    say: 'Nothing was lost: the file system inside is clean.',
    command: 'fsck.fat -n back.raw',
    optional: true,
  };
  return { name: 'FAT16', check };
}

/** What a crashed writer may leave: a block nobody refers to, and a count that is wrong. */
function damage(path: string): void {
  const file = openSync(path, 'r+');
  try {
    const field = Buffer.alloc(4);
    readSync(file, field, 0, 4, BLOCKS_ALLOCATED);
    field.writeUInt32LE(field.readUInt32LE(0) - 2);
    writeSync(file, field, 0, 4, BLOCKS_ALLOCATED);
    ftruncateSync(file, fstatSync(file).size + 2 * BLOCK);
  } finally {
    closeSync(file);
  }
}

function tour(folder: string): void {
  const { name, check } = makeFileSystem(folder);
  const step = (text: string, command: string, more: Partial<Step> = {}) =>
    run(folder, { say: text, command, ...more });

  say(`Here is files.raw, a disk with an ${name} file system and two files on it.`);
  step('Convert it to a VDI, which keeps only what is in use:', 'diskwright convert files.raw disk.vdi');
  step('What is it?', 'diskwright info disk.vdi');
  step('Where is what?', 'diskwright map disk.vdi');
  step('Is it sound?', 'diskwright check disk.vdi');

  damage(join(folder, 'disk.vdi'));
  say('Now we break it, as a crash might: two blocks at its end that nothing refers to, and a wrong count of blocks.');
  step('The check finds that:', 'diskwright check disk.vdi', { exits: 2 });
  step('Repair it:', 'diskwright check -r all disk.vdi');
  step('Does it still hold the same disk? Compare it with the original:', 'diskwright compare files.raw disk.vdi');
  step('QEMU agrees:', 'qemu-img check disk.vdi', { optional: true });
  step('And back to a plain disk:', 'diskwright convert -O raw disk.vdi back.raw');
  run(folder, check);
  say('That was create-to-repair in one go. Next: `npm start -- --help`, or the README.');
}

const folder = mkdtempSync(join(tmpdir(), 'diskwright-tour-'));
// The command that runs gets the signal too and ends; the tour then ends as after any failure, leaving nothing behind.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
try {
  tour(folder);
} catch (error) {
  process.stderr.write(`The tour stopped: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
