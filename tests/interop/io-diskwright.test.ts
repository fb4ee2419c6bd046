/** The shell where it goes past qemu-io, or follows a later release than the one installed here. */
import { spawn } from 'node:child_process';
import { readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Outcome, SideBySide } from './cli-programs.ts';

const MIB = 1 << 20;

/** What a running program prints. */
class Output {
  #text = '';
  readonly #chunks: AsyncIterator<string>;

  constructor(stream: Readable) {
    this.#chunks = stream.setEncoding('utf8')[Symbol.asyncIterator]();
  }

  /** Waits until it has printed `text`. */
  async until(text: string): Promise<void> {
    while (!this.#text.includes(text)) {
      if (!(await this.#next())) throw new Error(`ended without ${text}: ${this.#text}`);
    }
  }

  /** What it prints until it ends. */
  async rest(): Promise<string> {
    const from = this.#text.length;
    while (await this.#next());
    return this.#text.slice(from);
  }

  async #next(): Promise<boolean> {
    const { done, value } = await this.#chunks.next();
    this.#text += value ?? '';
    return done !== true;
  }
}

let pair: SideBySide;
beforeAll(async () => {
  pair = await SideBySide.make();
});
afterAll(() => pair?.remove());
beforeEach(() => {
  pair.clear();
  writeFileSync(join(pair.ours, 'a.raw'), Buffer.alloc(MIB));
});

function commandWords(commands: readonly string[]): string[] {
  return commands.flatMap((command) => ['-c', command]);
}

/** In qemu-io's dialect. */
async function qemuIo(words: string, ...commands: string[]): Promise<Outcome> {
  return timeless(await pair.runOurIoHere([...commandWords(commands), ...words.split(' ')]));
}

async function diskwrightIo(words: string, ...commands: string[]): Promise<Outcome> {
  return timeless(await pair.runDiskwrightHere(['io', ...commandWords(commands), ...words.split(' ')]));
}

function timeless({ stdout, ...rest }: Outcome): Outcome {
  return { ...rest, stdout: stdout.replace(/; .*ops\/sec\)$/gm, '') };
}

const BLKDEBUG = '-f raw blkdebug::a.raw';
const READ = 'read 512/512 bytes at offset 0\n512 bytes, 1 ops\n';
const WROTE = 'wrote 512/512 bytes at offset 0\n512 bytes, 1 ops\n';

describe('breakpoints', () => {
  const stopped = ['break pwritev A', 'aio_write 0 512', 'wait_break A'];

  test('removing one of which only suspended requests are left succeeds (T-BRK-1)', async () => {
    expect(await qemuIo(BLKDEBUG, ...stopped, 'remove_break A', 'aio_flush')).toEqual({
      status: 0,
      stdout: `blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n${WROTE}`,
      stderr: '',
    });
  });

  test('several on one event stop a request together, and each is resumed by itself (BD-31)', async () => {
    const commands = ['break pwritev A', 'break pwritev B', 'aio_write 0 512', 'wait_break A', 'resume A'];
    expect((await qemuIo(BLKDEBUG, ...commands, 'wait_break B', 'resume B', 'aio_flush')).stdout).toBe(
      `${['Suspended', 'Suspended', 'Resuming', 'Resuming']
        .map((what, index) => `blkdebug: ${what} request '${'BAAB'[index]}'\n`)
        .join('')}${WROTE}`,
    );
  });

  test('requests of raw images raise read_aio and write_aio (BD-40, BD-41)', async () => {
    const commands = ['break write_aio W', 'aio_write 0 512', 'wait_break W', 'resume W', 'aio_flush'];
    expect((await qemuIo(BLKDEBUG, ...commands, 'break read_aio R', 'aio_read 0 512', 'wait_break R')).stdout).toBe(
      `blkdebug: Suspended request 'W'\nblkdebug: Resuming request 'W'\n${WROTE}` +
        `blkdebug: Suspended request 'R'\nblkdebug: Resuming request 'R'\n${READ}`,
    );
  });

  test('waiting for what cannot come fails (T-BRK-2)', async () => {
    expect(await qemuIo(BLKDEBUG, 'wait_break A', 'break pwritev B', 'wait_break B', 'length')).toEqual({
      status: 1,
      stdout:
        'Could not wait for breakpoint A: No such file or directory\n' +
        'Could not wait for breakpoint B: No such file or directory\n1 MiB\n',
      stderr: '',
    });
  });

  test.each(['aio_flush', 'close', 'length', 'reopen -r'])(
    '%s, or the end, lets go what is suspended (BD-36)',
    async (last) => {
      const { status, stdout } = await qemuIo(BLKDEBUG, ...stopped, last);
      expect(stdout.replace('1 MiB\n', '')).toBe(
        `blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n${WROTE}`,
      );
      expect(status).toBe(0);
    },
  );
});

describe('requests beside the commands', () => {
  test('end in their own order, and tell when they end (T-AIO-1)', async () => {
    const shell = spawn(pair.program('qemu-io'), BLKDEBUG.split(' '), { cwd: pair.ours });
    const output = new Output(shell.stdout);
    shell.stdin.write('break read_aio A\naio_read 0 512\nwait_break A\naio_read 4k 512\n');
    await output.until('read 512/512 bytes at offset 4096\n512 bytes, 1 ops');
    shell.stdin.end('resume A\naio_flush\n');
    expect(await output.rest()).toMatch(/^blkdebug: Resuming request 'A'\nqemu-io> read 512\/512 bytes at offset 0\n/);
  });

  test('zero writes take the time they take (T-AIO-2)', () => {
    const { stdout } = pair.runOurIo(['-c', 'aio_write -z 0 1M', '-f', 'raw', 'a.raw']);
    expect(stdout).toMatch(/^wrote 1048576\/1048576 bytes at offset 0\n1 MiB, 1 ops; (00\.\d\d sec|0:00:0\d\.\d\d) \(/);
  });
});

describe('numbers and options of the release that is followed', () => {
  test('negative numbers are too large (T-ARG-1)', async () => {
    expect((await qemuIo('-f raw a.raw', 'read -- -1 512', 'read 0 -- -1k')).stdout).toBe(
      'Parsing error: argument too large -- -1\n' +
        'Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- -1k\n',
    );
  });

  test('registered buffers make no difference, but with zeroes (T-IO-7, T-WRITE-1)', async () => {
    const plain = ['write -r 0 512', 'read -r 0 512', 'readv -r 0 512', 'writev -r 0 512'];
    expect((await qemuIo('-f raw a.raw', ...plain, 'write -zr 0 1', 'aio_write -zr 0 1')).stdout).toBe(
      WROTE + READ + READ + WROTE + 'cannot combine zero write with registered I/O buffer\n'.repeat(2),
    );
  });

  test('truncate needs a size whatever the mode (T-TRUNC-1)', async () => {
    expect((await qemuIo('-f raw a.raw', 'truncate -m off')).stdout).toBe(
      'truncate [-m prealloc_mode] off -- truncates the current file at the given offset\n',
    );
  });

  test('version (T-IO-1, T-GEN-1)', async () => {
    expect((await qemuIo('-V')).stdout).toMatch(/^qemu-io version 8\.2\.7 \(diskwright .*\)\nCopyright /);
  });
});

test('lines of any length (T-IO-3)', () => {
  const line = `writev 0 ${'1 '.repeat(50_000)}`;
  const { stdout } = pair.runOurIo(['-f', 'raw', 'a.raw'], Buffer.from(`${line}\nread -P 0xcd 0 50000\n`));
  expect(stdout).toMatch(/^qemu-io> wrote 50000\/50000 bytes at offset 0\n.*\nqemu-io> read 50000\/50000 bytes/);
});

test('prompt, messages and usage bear the name it was called by (T-GEN-1)', () => {
  const folder = join(pair.program('qemu-io'), '..');
  symlinkSync('qemu-io', join(folder, 'my-io'));
  const run = (args: readonly string[], input = '') => pair.runOurIo(args, Buffer.from(input), 'my-io');
  expect(run(['-f', 'raw', 'a.raw'], 'length\n').stdout).toBe('my-io> 1 MiB\nmy-io> ');
  expect(run(['nope']).stderr).toBe(
    "my-io: can't open device nope: Could not open 'nope': No such file or directory\n",
  );
  expect(run(['-h']).stdout).toMatch(/^Usage: my-io \[OPTIONS\]/);
});

describe('temporary overlays (T-IO-1)', () => {
  test.each(['raw', 'vdi'])('of %s images take what is written, and leave nothing', async (format) => {
    const name = `b.${format}`;
    expect(pair.runDiskwright(['create', '-f', format, name, '1M']).status).toBe(0);
    const before = readdirSync(pair.ours);
    const words = `-s -f ${format} ${name}`;
    expect((await qemuIo(words, 'write -P 7 0 1k', 'read -P 7 0 1k', 'read -P 0 1k 1k')).status).toBe(0);
    expect((await diskwrightIo(words, 'read -P 0 0 1M')).status).toBe(0);
    expect(readdirSync(pair.ours)).toEqual(before);
  });
});

describe('diskwright io', () => {
  test('changes rules while the image is open (BD-60)', async () => {
    const outcome = await diskwrightIo(
      BLKDEBUG,
      'fault list',
      'fault add pwritev errno=ENOSPC once',
      'fault add set-state flush_to_os state=1 new_state=2',
      'write 0 512',
      'write 0 512',
      'fault add none errno=5 sector=3 iotype=read',
      'fault list',
      'read 0 2k',
      'fault list',
      'fault remove 3',
      'read 0 512',
    );
    expect(outcome).toEqual({
      status: 1,
      stdout: [
        'rule 1',
        'rule 2',
        'write failed: No space left on device',
        'wrote 512/512 bytes at offset 0',
        '512 bytes, 1 ops',
        'rule 3',
        '2: set-state flush_to_os state=1 new_state=2, 1 hit',
        '3: none errno=EIO offset=1536 length=1 iotype=read, 0 hits',
        'read failed: Input/output error',
        '2: set-state flush_to_os state=1 new_state=2, 1 hit',
        '3: none errno=EIO offset=1536 length=1 iotype=read, 1 hit',
        READ,
      ].join('\n'),
      stderr: '',
    });
  });

  test('tells of a torn write whether it is told as done', async () => {
    const torn = 'fault add none action=torn bytes=512 iotype=write once';
    const words = [`${torn}`, `${torn} errno=0`, 'fault list', 'write -P 5 0 1k', 'read -q -P 5 0 512', 'write 0 1k'];
    const { stdout } = await diskwrightIo(BLKDEBUG, ...words);
    expect(stdout.split('\n').slice(2, 6)).toEqual([
      '1: none action=torn errno=EIO once=on iotype=write bytes=512, 0 hits',
      '2: none action=torn errno=0 once=on iotype=write bytes=512, 0 hits',
      'wrote 1024/1024 bytes at offset 0',
      '1 KiB, 1 ops',
    ]);
  });

  test('says what is wrong with a rule', async () => {
    const usage =
      'fault (add [set-state] event [key=value..] | list | remove id) -- changes the rules by which blkdebug injects faults\n';
    expect(
      await diskwrightIo(
        BLKDEBUG,
        'fault add zork',
        'fault add none foo=1',
        'fault remove 7',
        'fault add',
        'fault zork',
      ),
    ).toEqual({
      status: 1,
      stdout: usage.repeat(2),
      stderr: [
        'diskwright: invalid parameter value: zork',
        "diskwright: [inject-error] section doesn't support the option 'foo'",
        'diskwright: There is no rule 7\n',
      ].join('\n'),
    });
    expect((await diskwrightIo('-f raw a.raw', 'fault list')).stderr).toBe(
      'diskwright: No blkdebug node is there to change: open the image as blkdebug::FILE\n',
    );
    expect((await qemuIo(BLKDEBUG, 'fault list')).stderr).toBe('command "fault" not found\n');
    const ranges = ['probability=7', 'every=0', 'sector=-5', 'action=delay delay-ms=x', 'length=1'];
    const { stderr } = await diskwrightIo(BLKDEBUG, ...ranges.map((range) => `fault add none ${range}`), 'fault list');
    expect(stderr.split('\n')).toEqual([
      'diskwright: invalid parameter value: 7',
      "diskwright: Parameter 'every' expects a whole number of at least 1, not 0",
      'diskwright: Parameter \'range\' expects an offset of at least 0 and a length of at least 1, not {"offset":-2560,"length":1}',
      "diskwright: Parameter 'delay-ms' expects a number",
      "diskwright: Parameter 'length' expects 'offset' or 'sector' beside it",
      '',
    ]);
  });

  test('marks a log, and replay goes up to the mark', async () => {
    const word = (name: string) => join(pair.ours, name);
    for (const name of ['copy.raw', 'a.log']) writeFileSync(word(name), Buffer.alloc(name === 'a.log' ? 0 : MIB));
    const log = '--image-opts driver=log,file.driver=file,file.filename=a.raw,log.driver=file,log.filename=a.log';
    const commands = ['write -q -P 1 0 512', 'mark one', 'write -q -P 2 0 512', 'mark two', `mark ${'x'.repeat(500)}`];
    expect(await diskwrightIo(log, ...commands, 'mark')).toEqual({
      status: 1,
      stdout: '',
      stderr:
        `diskwright: The mark's name is longer than 479 bytes: '${'x'.repeat(500)}'\n` +
        'bad argument count 0 to mark, expected 1 arguments\n',
    });
    expect(pair.runDiskwright(['replay', '--list', 'a.log']).stdout.split('\n')).toEqual([
      ...['0       write   0+512 fua', '1       mark    one', '2       write   0+512 fua', '3       mark    two'],
      ...['4       flush', ''],
    ]);
    pair.runDiskwright(['replay', '-q', '-f', 'raw', '--mark', 'two', 'a.log', 'copy.raw']);
    expect((await diskwrightIo('-f raw copy.raw', 'read -q -P 2 0 512')).status).toBe(0);
    expect((await diskwrightIo('-f raw a.raw', 'mark one')).stderr).toBe(
      'diskwright: No log node is there to mark: open the image through the filter log\n',
    );
    expect((await qemuIo('-f raw a.raw', 'mark one')).stderr).toBe('command "mark" not found\n');
  });

  test('resizes VDIs, which qemu-io cannot', async () => {
    pair.runDiskwright(['create', '-f', 'vdi', 'b.vdi', '1M']);
    expect(await qemuIo('-f vdi b.vdi', 'truncate 2M', 'length')).toEqual({
      status: 1,
      stdout: '1 MiB\n',
      stderr: 'qemu-io: Image format driver does not support resize\n',
    });
    expect((await diskwrightIo('-f vdi b.vdi', 'truncate 2M', 'length')).stdout).toBe('2 MiB\n');
  });

  test('knows what a differencing image itself stores (T-ALLOC-1, T-MAP-IO)', async () => {
    pair.runDiskwright(['create', '-f', 'vdi', 'base.vdi', '4M']);
    pair.runDiskwright(['create', '-f', 'vdi', '-b', 'base.vdi', '-F', 'vdi', 'top.vdi']);
    await diskwrightIo('-f vdi base.vdi', 'write -P 1 0 1M');
    expect(
      (await diskwrightIo('-f vdi top.vdi', 'write -P 2 1M 1M', 'alloc 0 4M', 'map', 'read -q -P 1 0 1M')).stdout,
    ).toBe(
      [
        'wrote 1048576/1048576 bytes at offset 1048576',
        '1 MiB, 1 ops',
        '1048576/4194304 bytes allocated at offset 0 bytes',
        '1 MiB (0x100000) bytes not allocated at offset 0 bytes (0x0)',
        '1 MiB (0x100000) bytes     allocated at offset 1 MiB (0x100000)',
        '2 MiB (0x200000) bytes not allocated at offset 2 MiB (0x200000)\n',
      ].join('\n'),
    );
  });

  test('copies on read (T-IO-1)', async () => {
    pair.runDiskwright(['create', '-f', 'vdi', 'base.vdi', '4M']);
    pair.runDiskwright(['create', '-f', 'vdi', '-b', 'base.vdi', '-F', 'vdi', 'top.vdi']);
    await diskwrightIo('-f vdi base.vdi', 'write -P 1 0 1M');
    expect((await diskwrightIo('-C -f vdi top.vdi', 'read -q -P 1 0 1M', 'alloc 0 4M')).stdout).toBe(
      '1048576/4194304 bytes allocated at offset 0 bytes\n',
    );
  });

  test('a mismatch of blkverify fails the request, and the shell goes on', async () => {
    const other = Buffer.alloc(MIB);
    other[4096] = 1;
    writeFileSync(join(pair.ours, 'other.raw'), other);
    const { status, stdout, stderr } = await diskwrightIo('-f raw blkverify:other.raw:a.raw', 'read 4k 512', 'length');
    expect({ status, stdout }).toEqual({ status: 1, stdout: 'read failed: Input/output error\n1 MiB\n' });
    expect(stderr).toContain('blkverify: read offset=4096 bytes=512 contents mismatch at offset 4096\n');
  });

  test('has a prompt of its own, and refuses two images', async () => {
    const { stdout } = pair.runDiskwright(['io', '-f', 'raw', 'a.raw'], Buffer.from('length\nquit\n'));
    expect(stdout).toBe('diskwright io> 1 MiB\ndiskwright io> ');
    expect((await diskwrightIo('a.raw b.raw')).stderr).toBe(
      "diskwright: Expecting one image file name\nTry 'diskwright io --help' for more information\n",
    );
  });

  test('a write into the last sector of a file makes it no longer than it must be', async () => {
    writeFileSync(join(pair.ours, 'odd'), Buffer.alloc(1000));
    expect((await diskwrightIo('-f file odd', 'write -P 1 1000 4', 'length', 'read -q -P 1 1000 4')).status).toBe(0);
    expect(statSync(join(pair.ours, 'odd')).size).toBe(1004);
  });
});
