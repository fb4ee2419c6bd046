/** The program `diskwright`: what it does beyond qemu-img's command line, and how both end. */
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commands } from '../../src/tools/commands/index.ts';
import { type Outcome, SideBySide } from './cli-programs.ts';

const MIB = 1 << 20;
let pair: SideBySide;

beforeAll(async () => {
  pair = await SideBySide.make();
  const disk = Buffer.alloc(8 * MIB);
  for (let block = 0; block < 8; block += 2) disk.fill(block + 1, block * MIB + 1000, block * MIB + 300_000);
  writeFileSync(join(pair.ours, 'disk.raw'), disk);
});
afterAll(() => pair?.remove());

async function diskwright(line: string, input?: Uint8Array): Promise<Outcome> {
  const words = line.split(' ');
  return input === undefined ? await pair.runDiskwrightHere(words) : pair.runDiskwright(words, input);
}

/** Runs a line that must succeed and say nothing on stderr; what it printed. */
async function good(line: string, input?: Uint8Array): Promise<string> {
  const { status, stdout, stderr } = await diskwright(line, input);
  expect([line, status, stderr]).toEqual([line, 0, '']);
  return stdout;
}

const checksumOf = async (name: string) => (await good(`checksum ${name}`)).split(' ')[0];

describe('formats by extension', () => {
  test('create and convert', async () => {
    expect(await good('create a.vdi 3M')).toBe("Formatting 'a.vdi', fmt=vdi size=3145728 static=off\n");
    expect(await good('create a.img 3M')).toBe("Formatting 'a.img', fmt=raw size=3145728\n");
    await good('convert disk.raw b.VDI');
    expect(JSON.parse(await good('info --output=json b.VDI')).format).toBe('vdi');
    await good('convert -O raw disk.raw c.vdi');
    expect(JSON.parse(await good('info -f raw --output=json c.vdi')).format).toBe('raw');
  });

  test('one that we know of and cannot make is not taken for raw', async () => {
    const { status, stderr } = await diskwright('create a.vmdk 3M');
    expect([status, stderr]).toEqual([1, "diskwright: a.vmdk: Unknown file format 'vmdk'\n"]);
  });

  test('diskwright-img does not guess', () => {
    expect(pair.runOurs(['create', 'd.vdi', '3M']).stdout).toBe("Formatting 'd.vdi', fmt=raw size=3145728\n");
  });
});

describe('VDI in full', () => {
  test('info tells what only this format has (V-31)', async () => {
    await good('create e.vdi 3M');
    expect(await good('info e.vdi')).toMatch(
      /Format specific information:\n {4}version: 1\.1\n {4}image type: dynamic\n(.*\n)* {4}uuid: [0-9a-f-]{36}\n/,
    );
    expect(JSON.parse(await good('info --output=json e.vdi'))['format-specific'].data['image-type']).toBe('dynamic');
  });

  test('resize, and what it refuses', async () => {
    await good('convert disk.raw f.vdi');
    expect(await good('resize f.vdi +4M')).toBe('Image resized.\n');
    expect(JSON.parse(await good('info --output=json f.vdi'))['virtual-size']).toBe(12 * MIB);
    expect((await diskwright('resize f.vdi 8M')).stderr).toMatch(/^diskwright: Use the --shrink option/);
    await good('resize --shrink f.vdi 8M');
    expect(await checksumOf('f.vdi')).toBe(await checksumOf('disk.raw'));
  });

  test('check finds, repairs and looks again', async () => {
    await good('convert disk.raw g.vdi');
    const path = join(pair.ours, 'g.vdi');
    const bytes = readFileSync(path);
    bytes.writeUInt32LE(77, 0x200 + 4 * 2);
    writeFileSync(path, bytes);
    const found = await diskwright('check g.vdi');
    expect([found.status, found.stderr]).toEqual([2, expect.stringContaining('ERROR: block index 2 too large, is 77')]);
    const planned = await diskwright('check -r all --plan --progress=json g.vdi');
    expect(planned.status).toBe(2);
    expect(planned.stdout).toMatch(/^Nothing was written\. This would be repaired:\n(.*\n)*\n[12] errors were found/);
    expect(planned.stderr).toMatch(/^\{"done":0,.*\n(.*\n)*Repairing block 2: .*\n(.*\n)*\{.*"percent":100\}\n$/);
    expect(bytes.equals(readFileSync(path))).toBe(true);
    expect((await diskwright('check --plan g.vdi')).stderr).toContain(
      '--plan needs a repair to plan: -r leaks or -r all',
    );
    const repaired = await diskwright('check -r all g.vdi');
    expect(repaired.status).toBe(0);
    expect(repaired.stdout).toMatch(
      /^The following inconsistencies were found and repaired:\n\n(.*\n)*Double checking the fixed image now\.\.\.\nNo errors were found on the image\.\n/,
    );
    expect((await diskwright('check g.vdi')).status).toBe(0);
  });

  test('compact gives zeroes back', async () => {
    await good('convert -S 0 disk.raw h.vdi');
    expect(await good('compact h.vdi')).toMatch(/^Image compacted: disk size .* -> .*\.\n$/);
    expect(await checksumOf('h.vdi')).toBe(await checksumOf('disk.raw'));
    expect(await good('check h.vdi')).toContain('No errors were found on the image.');
  });

  test('measure tells the size that convert then makes', async () => {
    await good('convert disk.raw holes.raw');
    const { required, 'fully-allocated': full } = JSON.parse(await good('measure -O vdi --output=json holes.raw'));
    await good('convert holes.raw measured.vdi');
    expect(statSync(join(pair.ours, 'measured.vdi')).size).toBe(required);
    expect(full).toBe(9 * MIB);
  });

  test('checksum is equal for equal content, not for other', async () => {
    await good('convert disk.raw i.vdi');
    expect(await checksumOf('i.vdi')).toBe(await checksumOf('disk.raw'));
    await good('create j.vdi 8M');
    expect(await checksumOf('j.vdi')).not.toBe(await checksumOf('disk.raw'));
    expect(JSON.parse(await good('checksum --output=json i.vdi'))).toMatchObject({ size: 8 * MIB, filename: 'i.vdi' });
  });
});

describe('VDI as qemu-img has it, in diskwright-img', () => {
  beforeAll(async () => {
    await good('convert disk.raw q.vdi');
  });

  test('refuses resize and measure (T-RESIZE-1, T-MEAS-1)', () => {
    expect(pair.runOurs(['resize', 'q.vdi', '20M'])).toEqual({
      status: 1,
      stdout: '',
      stderr: 'qemu-img: Image format driver does not support resize\n',
    });
    expect(pair.runOurs(['measure', '-O', 'vdi', 'q.vdi']).stderr).toBe(
      "qemu-img: Block driver 'vdi' does not support size measurement\n",
    );
  });

  test('has no repair: exit status 63 (T-CHECK-1)', () => {
    expect(pair.runOurs(['check', '-r', 'all', 'q.vdi'])).toEqual({
      status: 63,
      stdout: '',
      stderr: 'qemu-img: This image format does not support checks\n',
    });
    expect(pair.runOurs(['check', 'q.vdi']).stdout).toBe('No errors were found on the image.\n');
  });

  test('tells nothing specific, children as the newer releases do (T-INFO-3)', () => {
    expect(pair.runOurs(['info', 'q.vdi']).stdout).toMatch(
      /^image: q\.vdi\nfile format: vdi\nvirtual size: 8 MiB \(8388608 bytes\)\ndisk size: .*\ncluster_size: 1048576\nChild node '\/file':\n {4}filename: q\.vdi\n {4}protocol type: file\n {4}file length: .*\n {4}disk size: .*\n$/,
    );
  });

  test('refuses our creation options as it refuses any that it has not, and has them nowhere in help (V-41)', async () => {
    const ours = ['block-size=64k', 'uuid=a', 'description=a', 'data-align=512', 'parent=q.vdi', 'differencing=on'];
    const help = pair.runOurs(['create', '-f', 'vdi', '-o', 'help']).stdout;
    const friendly = await good('create -f vdi -o help');
    for (const option of ours) {
      const [name = ''] = option.split('=');
      const words = ['create', '-f', 'vdi', '-o', `static=off,${option}`, 'small.vdi', '1M'];
      const refused = { status: 1, stdout: '', stderr: `qemu-img: small.vdi: Invalid parameter '${name}'\n` };
      expect([pair.runOurs(words), pair.runTheirs(words)]).toEqual([refused, refused]);
      expect([help.includes(name), friendly.includes(`${name}=`)]).toEqual([false, true]);
    }
  });
});

describe('sizes as the newer releases read them (T-SIZE-1), where the installed one differs', () => {
  const lines: readonly (readonly [string, RegExp])[] = [
    ['create s.raw .5k', /size=512\n$/],
    ['create s.raw 0x10k', /^qemu-img: Invalid image size specified\. You may use/],
    ['create s.raw -- -1', /^qemu-img: Invalid image size specified\. Must be between 0 and 9223372036854775807\.\n$/],
    ['create -o size=-1 s.raw', /^qemu-img: s\.raw: Value '-1' is out of range for parameter 'size'\n$/],
    ['create -o size=-1k s.raw', /^qemu-img: s\.raw: Parameter 'size' expects a non-negative number below 2\^64\n/],
  ];
  test.each(lines)('%s', (line, expected) => {
    const { stdout, stderr } = pair.runOurs(line.split(' '));
    expect(stdout + stderr).toMatch(expected);
  });
});

describe('standard input and output', () => {
  const disk = () => readFileSync(join(pair.ours, 'disk.raw'));

  test('an image to standard output, as raw data', async () => {
    await good('convert disk.raw k.vdi');
    const run = spawnSync('sh', ['-c', `'${pair.program('diskwright')}' convert k.vdi - | cmp - disk.raw`], {
      cwd: pair.ours,
      encoding: 'utf8',
    });
    expect([run.status, run.stdout, run.stderr]).toEqual([0, '', '']);
  });

  test('Q-BEY-2: images to standard output and into a named pipe, which qemu-img finds sound and the same', () => {
    const program = `'${pair.program('diskwright')}'`;
    const secret = '--object secret,id=s,data=pw';
    const luks = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
    const commands = [
      `${program} convert -O qcow2 -o cluster_size=4k,lazy_refcounts=on disk.raw - | cat > piped.qcow2`,
      `${program} convert -O vdi disk.raw - | cat > piped.vdi`,
      `${program} convert ${secret} -O qcow2 -o ${luks} disk.raw - | cat > luks.qcow2`,
      `mkfifo pipe && { cat pipe > packed.qcow2 & ${program} convert -c -O qcow2 disk.raw pipe; } && wait`,
      ...['piped.qcow2', 'piped.vdi', 'packed.qcow2'].flatMap((name) => [
        `qemu-img check -q ${name}`,
        `qemu-img compare -q disk.raw ${name}`,
      ]),
      'qemu-img check packed.qcow2 | grep -q "[1-9][.0-9]*% compressed"',
      `qemu-img compare -q ${secret} --image-opts driver=raw,file.filename=disk.raw driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=s`,
    ];
    const run = spawnSync('sh', ['-c', commands.join(' && ')], { cwd: pair.ours, encoding: 'utf8' });
    expect([run.status, run.stdout, run.stderr]).toEqual([0, '', '']);
  });

  test('Q-BEY-2: what lies over another, and a snapshot, to standard output', () => {
    const program = `'${pair.program('diskwright')}'`;
    const commands = [
      'qemu-img create -q -f qcow2 -b disk.raw -F raw top.qcow2',
      "qemu-io -c 'write -q -P 9 1M 100k' -c 'write -q -z 2M 128k' top.qcow2",
      `${program} convert -c -O qcow2 -B disk.raw -F raw top.qcow2 - | cat > over.qcow2`,
      'qemu-img check -q over.qcow2',
      'qemu-img compare -q top.qcow2 over.qcow2',
      'qemu-img snapshot -c then top.qcow2',
      "qemu-io -c 'write -q -P 1 0 64k' top.qcow2",
      'qemu-img convert -O raw over.qcow2 then.raw',
      `${program} convert -l then top.qcow2 - | cmp - then.raw`,
    ];
    const run = spawnSync('sh', ['-c', commands.join(' && ')], { cwd: pair.ours, encoding: 'utf8' });
    expect([run.status, run.stdout, run.stderr]).toEqual([0, '', '']);
  });

  for (const target of ['from-pipe.vdi', 'from-pipe.raw']) {
    test(`a pipe to ${target}, whose size shows at its end only`, async () => {
      await good(`convert - ${target}`, disk());
      expect(await checksumOf(target)).toBe(await checksumOf('disk.raw'));
      expect(JSON.parse(await good(`info --output=json ${target}`))['virtual-size']).toBe(8 * MIB);
    });
  }

  test('a pipe into a compressed image, up to its last cluster', async () => {
    for (const extra of [0, 700]) {
      await good('convert -c - packed.qcow2', Buffer.concat([disk(), Buffer.alloc(extra, 5)]));
      const run = spawnSync('qemu-img', ['check', 'packed.qcow2'], { cwd: pair.ours, encoding: 'utf8' });
      expect(run.stdout).toMatch(/No errors were found on the image[\s\S]* [1-9][\d.]*% compressed clusters/);
      await good('convert -O raw packed.qcow2 unpacked.raw');
      const unpacked = readFileSync(join(pair.ours, 'unpacked.raw'));
      expect(unpacked.equals(Buffer.concat([disk(), Buffer.alloc(extra, 5), Buffer.alloc(extra && 324)]))).toBe(true);
    }
  });

  test('odd sizes are completed with zeroes', async () => {
    await good('convert - odd.vdi', Buffer.alloc(1000, 7));
    expect(JSON.parse(await good('info --output=json odd.vdi'))['virtual-size']).toBe(1024);
    await good('convert - none.raw', Buffer.alloc(0));
    expect(readFileSync(join(pair.ours, 'none.raw')).length).toBe(0);
  });

  test('what cannot be is refused before anything is made', async () => {
    const refusals: readonly (readonly [string, string])[] = [
      ['convert - -', 'Standard input can only be converted to a file.'],
      ['convert -n -O vdi disk.raw -', '-n cannot be used with what takes bytes in order only.'],
      [
        'convert -O qcow2 -B a -F raw disk.raw disk.raw -',
        'Having a backing file for the target makes no sense when concatenating multiple input images',
      ],
      ['convert -f vdi - x.raw', 'Standard input gives raw data only.'],
      ['convert - disk.raw x.raw', 'Standard input can only be the only source.'],
    ];
    for (const [line, message] of refusals) {
      expect([line, await diskwright(line)]).toEqual([
        line,
        { status: 1, stdout: '', stderr: `diskwright: ${message}\n` },
      ]);
    }
    expect(readdirSync(pair.ours)).not.toContain('x.raw');
  });

  test('in the dialect of qemu-img a dash is a file name', () => {
    expect(pair.runOurs(['convert', '-', 'x.raw']).stderr).toContain("Could not open '-': No such file or directory");
  });
});

describe('progress', () => {
  test('--progress=json: one object a line on standard error', async () => {
    const { status, stdout, stderr } = await diskwright('convert --progress=json disk.raw l.vdi');
    expect([status, stdout]).toEqual([0, '']);
    const lines = stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines[0]).toMatchObject({ done: 0, percent: 0 });
    expect(lines.at(-1)).toMatchObject({ percent: 100 });
    expect(lines.every(({ done, total }) => done <= total)).toBe(true);
  });

  test('nothing of it where standard error is no terminal', async () => {
    expect(pair.runDiskwright(['convert', 'disk.raw', 'm.vdi'])).toEqual({ status: 0, stdout: '', stderr: '' });
  });

  test('diskwright-img does not know the option', () => {
    const { stderr } = pair.runOurs(['convert', '--progress=json', 'disk.raw', 'm.vdi']);
    expect(stderr).toMatch(/^qemu-img: unrecognized option '--progress=json'\n/);
  });
});

describe('what is told of progress stands on lines of its own', () => {
  test.each([
    ['check -p p.vdi', /100\/100%\)\r\nNo errors were found/],
    ['compact -p p.vdi', /100\/100%\)\r\nImage compacted/],
    ['checksum -p p.vdi', /100\/100%\)\r\n[0-9a-f]{64} {2}p\.vdi\n$/],
  ])('%s', async (line, text) => {
    await good('convert disk.raw p.vdi');
    expect((await good(line)).replaceAll('.00', '')).toMatch(text);
  });
});

describe('what was probably meant', () => {
  const tried = (about: string) => `Try 'diskwright ${about}--help' for more information\n`;
  test.each([
    ['creat x 1M', `diskwright: Command not found: creat\nDid you mean 'create'?\n${tried('')}`],
    ['ls', `diskwright: Command not found: ls\n${tried('')}`],
    [
      'info --backing-chian disk.raw',
      `diskwright: unrecognized option '--backing-chian'\nDid you mean '--backing-chain'?\n${tried('info ')}`,
    ],
    ['info --colour disk.raw', `diskwright: unrecognized option '--colour'\n${tried('info ')}`],
    ['snapshot disk.raw', `diskwright: Need one of -l, -c, -a or -d\n${tried('snapshot ')}`],
  ])('%s', async (line, stderr) => {
    expect(await diskwright(line)).toEqual({ status: 1, stdout: '', stderr });
  });

  test('diskwright-img has none of it', () => {
    expect(pair.runOurs(['creat', 'x', '1M']).stderr).toBe(
      "qemu-img: Command not found: creat\nTry 'qemu-img --help' for more information\n",
    );
    expect(pair.runOurs(['help']).stderr).toBe(
      "qemu-img: Command not found: help\nTry 'qemu-img --help' for more information\n",
    );
  });
});

test('one file as source and target: who is in the way', async () => {
  const { status, stderr } = await diskwright('convert disk.raw disk.raw');
  expect([status, stderr]).toEqual([
    1,
    'diskwright: disk.raw: error while converting raw: Failed to get "write" lock\n' +
      'Is another process using the image [disk.raw]?\nIt is used by this program itself.\n',
  ]);
});

test.runIf(process.platform === 'linux')('a name that is no UTF-8 is refused, where another file would be made', () => {
  const { status, stdout } = spawnSync(
    'sh',
    ['-c', `'${pair.program('diskwright')}' create "$(printf 'bad\\377')" 1M 2>&1; ls | grep -c bad`],
    { cwd: pair.ours, encoding: 'utf8' },
  );
  expect([status, stdout]).toEqual([
    1,
    "diskwright: Argument 2, 'bad\ufffd', is not valid UTF-8, and names no file here\n0\n",
  ]);
});

describe('help and version', () => {
  test('help COMMAND is what COMMAND --help is', async () => {
    expect(await good('help')).toBe(await good('--help'));
    expect(await good('help create')).toBe(await good('create --help'));
  });

  test('of the program: all commands, on standard output', async () => {
    const text = await good('--help');
    for (const { name } of commands) expect(text).toMatch(new RegExp(`^  ${name} `, 'm'));
    expect(text).toMatch(/^Supported formats: .*\braw\b.*\bvdi\b/m);
  });

  test.each(commands.map(({ name }) => name))('of %s: options and examples', (name) => {
    // As a program, so that each command's part of the bundle is loaded.
    const { status, stdout: text, stderr } = pair.runDiskwright([name, '--help']);
    expect([status, stderr]).toEqual([0, '']);
    expect(text).toContain(`usage: diskwright ${name} [OPTIONS]`);
    expect(text).toMatch(new RegExp(`^  diskwright ${name} `, 'm'));
  });

  test('of diskwright-img: usage lines, and formats on one line (T-GEN-6)', () => {
    const { stdout, status } = pair.runOurs(['info', '--help']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}info \[--object objectdef\] .* filename$/m);
    expect(stdout).toMatch(/^Supported formats: [a-z_0-9-]+( [a-z_0-9-]+)*$/m);
    expect(pair.runOurs(['--version']).stdout).toMatch(/^qemu-img version 8\.\d+\.\d+ .*\nCopyright .*\n$/);
  });
});

describe('signals', () => {
  /** Starts a conversion that takes long, and calls `then` once it is under way. */
  function slowConvert(args: readonly string[], then: (child: ReturnType<typeof spawn>) => void) {
    return new Promise<{ code: number | null; signal: string | null; stderr: string }>((resolve) => {
      const child = spawn(pair.program('qemu-img'), ['convert', '-m', '1', '-r', '1M', ...args], {
        cwd: pair.ours,
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let stderr = '';
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        stderr += text;
        if (text.includes('/100%')) child.kill('SIGKILL');
      });
      const poll = setInterval(() => {
        // The hidden file beside the target shows that copying has begun.
        if (!readdirSync(pair.ours).some((name) => name.includes('slow.vdi'))) return;
        clearInterval(poll);
        setTimeout(() => then(child), 200);
      }, 10);
      child.on('close', (code, signal) => {
        clearInterval(poll);
        resolve({ code, signal, stderr });
      });
    });
  }

  test.each(['SIGINT', 'SIGTERM'] as const)('%s ends a conversion by that signal, and leaves no file', async (name) => {
    const before = readdirSync(pair.ours);
    const end = await slowConvert(['-O', 'vdi', 'disk.raw', 'slow.vdi'], (child) => child.kill(name));
    expect(end).toEqual({ code: null, signal: name, stderr: '' });
    expect(readdirSync(pair.ours)).toEqual(before);
  });

  test('SIGUSR1 prints the progress (T-GEN-16)', async () => {
    const end = await slowConvert(['-O', 'vdi', 'disk.raw', 'slow.vdi'], (child) => child.kill('SIGUSR1'));
    expect(end.stderr).toMatch(/^ {4}\(\d+\.\d\d\/100%\)\n$/);
    expect(end.signal).toBe('SIGKILL');
  });

  test('a reader that goes away ends a listing quietly', () => {
    const line = `'${pair.program('diskwright')}' map --output=json disk.raw | head -c 1`;
    const run = spawnSync('sh', ['-c', line], { cwd: pair.ours, encoding: 'utf8' });
    expect([run.status, run.stdout, run.stderr]).toEqual([0, '[', '']);
  });
});

test('a result that cannot be written is told', () => {
  const line = `'${pair.program('diskwright')}' info disk.raw > /dev/full`;
  const run = spawnSync('sh', ['-c', line], { cwd: pair.ours, encoding: 'utf8' });
  expect([run.status, run.stderr]).toEqual([1, 'diskwright: No space left on device\n']);
});
