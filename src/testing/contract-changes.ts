/** Contract cases: zero writes, discards, block status, sizes. */

import { differsAt, notFilledAt } from './compare-bytes.ts';
import { expectContent } from './contract-requests.ts';
import type { CaseContext, CaseTable } from './contract-subject.ts';
import { operationData } from './disk-operations.ts';
import { checkRun } from './disk-trial.ts';
import type { DiskUnderTest } from './disk-under-test.ts';
import { expectBytes, expectCode, expectFilled, expectThat, isSupported } from './expectations.ts';
import { ModelDisk } from './model-disk.ts';

async function filled({ disk, length }: CaseContext): Promise<ModelDisk> {
  const model = new ModelDisk(length);
  model.write(0, operationData(42, length));
  await disk.write(0, model.bytes);
  return model;
}

/** Each byte is as it was, or zero; the model takes over what it is. */
async function adoptOldOrZero(
  disk: DiskUnderTest,
  model: ModelDisk,
  offset: number,
  size: number,
  what: string,
): Promise<void> {
  const old = model.read(offset, size);
  const found = await disk.read(offset, size);
  if (differsAt(found, old) >= 0 && notFilledAt(found, 0) >= 0) {
    const bad = found.findIndex((byte, i) => byte !== 0 && byte !== old[i]);
    expectThat(bad < 0, `byte ${bad} of ${what} is ${found[bad]}`);
  }
  model.write(offset, found);
}

function ranges({ blockSize, length }: CaseContext): (readonly [number, number])[] {
  return [
    [0, blockSize],
    [blockSize + 10, 100],
    [blockSize * 2 - 1, blockSize + 2],
    [length - 700, 700],
    [512, 512],
  ];
}

/** Walks the status of the whole disk; checks each run against the content, and against the place it names. */
async function expectStatus({ disk, made }: CaseContext, content: Uint8Array): Promise<void> {
  for (let at = 0; at < content.length; ) {
    const now = disk.tryStatusNow(at, content.length - at);
    const run = await disk.status(at, content.length - at);
    checkRun(run, content.length - at);
    expectThat(
      now === undefined || JSON.stringify(now) === JSON.stringify(run),
      `status at ${at} is ${JSON.stringify(run)}, at once ${JSON.stringify(now)}`,
    );
    const bytes = content.subarray(at, at + run.length);
    if (run.zero) expectFilled(bytes, 0, `status at ${at} says zero`);
    if (run.data && run.at !== undefined && made.stored !== undefined) {
      const stored = await made.stored(run.at.filename, run.at.offset, run.length);
      expectBytes(stored, bytes, `status at ${at} names ${run.at.offset} of ${run.at.filename}`);
    }
    at += run.length;
  }
}

export const statusCases: CaseTable = {
  'tells status in runs that are not empty and stay in range': async ({ disk, length, blockSize }) => {
    for (const [offset, size] of [
      [0, length],
      [1, 1],
      [blockSize - 1, 2],
      [length - 1, 1],
      [blockSize + 3, length - blockSize - 3],
    ] as const) {
      checkRun(await disk.status(offset, size), size);
    }
  },
};

export const changeCases: CaseTable = {
  'tells status that fits the content, and places that hold it': async (context) => {
    const { disk, blockSize, length } = context;
    const model = new ModelDisk(length);
    for (const [offset, size] of ranges(context)) {
      const data = operationData(offset + 1, size);
      await disk.write(offset, data);
      model.write(offset, data);
    }
    await disk.writeZeroes(blockSize, blockSize, { unmap: true });
    model.writeZeroes(blockSize, blockSize);
    await disk.writeZeroes(0, 512);
    model.writeZeroes(0, 512);
    // Places are compared in the files, which a driver may write to later than the write resolves.
    await disk.flush();
    await expectStatus(context, model.bytes);
  },

  'writes zeroes over data and over nothing': async (context) => {
    const { disk, length } = context;
    for (const unmap of [false, true]) {
      const model = await filled(context);
      for (const [offset, size] of ranges(context)) {
        await disk.writeZeroes(offset, size, { unmap });
        model.writeZeroes(offset, size);
        await expectContent(disk, model.bytes, `zeroes of ${size} bytes at ${offset}, unmap ${unmap}`);
      }
      await expectStatus(context, model.bytes);
      await disk.writeZeroes(0, length, { unmap });
      expectFilled(await disk.read(0, length), 0, 'all of it');
      await disk.writeZeroes(0, length, { unmap: !unmap });
      expectFilled(await disk.read(0, length), 0, 'all of it, again');
    }
  },

  'writes zeroes without fallback, or says that it cannot and harms nothing': async (context) => {
    const { disk } = context;
    const model = await filled(context);
    for (const [offset, size] of ranges(context)) {
      const what = `zeroes of ${size} bytes at ${offset} without fallback`;
      if (await isSupported(disk.writeZeroes(offset, size, { unmap: true, noFallback: true }))) {
        model.writeZeroes(offset, size);
      } else await adoptOldOrZero(disk, model, offset, size, what);
      await expectContent(disk, model.bytes, what);
    }
  },

  'stores what is written compressed, or says that it cannot and harms nothing': async (context) => {
    const { disk, reopen, blockSize, length, subject } = context;
    const model = await filled(context);
    const data = new Uint8Array(2 * blockSize).fill(6);
    data.set(operationData(44, blockSize / 2), blockSize);
    const supported = await isSupported(disk.write(blockSize, data, { compressed: true }));
    if (supported) model.write(blockSize, data);
    await expectContent(disk, model.bytes, 'after a compressed write');
    if (!supported) return;
    const last = length - (length % blockSize);
    const tail = new Uint8Array(length - last).fill(9);
    await disk.write(last, tail, { compressed: true });
    model.write(last, tail);
    await expectCode(disk.write(10, new Uint8Array(blockSize), { compressed: true }), ['EINVAL'], 'part of a block');
    const small = operationData(45, 100);
    await disk.write(2 * blockSize - 50, small);
    model.write(2 * blockSize - 50, small);
    await disk.writeZeroes(blockSize, 100);
    model.writeZeroes(blockSize, 100);
    await expectContent(disk, model.bytes, 'over compressed blocks');
    await disk.flush();
    await expectStatus(context, model.bytes);
    if (subject.persistent === false) return;
    await expectContent(await reopen(), model.bytes, 'after opening again');
  },

  'discards to zeroes or to the old bytes, and nothing beside': async (context) => {
    const { disk } = context;
    const model = await filled(context);
    for (const [offset, size] of ranges(context)) {
      await disk.discard(offset, size);
      await adoptOldOrZero(disk, model, offset, size, `a discard of ${size} bytes at ${offset}`);
      await expectContent(disk, model.bytes, `beside a discard of ${size} bytes at ${offset}`);
    }
    await expectStatus(context, model.bytes);
  },

  'takes writes where it was discarded': async (context) => {
    const { disk, length } = context;
    await filled(context);
    await disk.discard(0, length);
    const model = new ModelDisk(length);
    model.write(0, operationData(43, length));
    await disk.write(0, model.bytes);
    await expectContent(disk, model.bytes, 'written after a discard');
  },

  'keeps zeroes and discards when opened again': async (context) => {
    if (context.subject.persistent === false) return;
    const { disk, reopen, blockSize, length } = context;
    await filled(context);
    await disk.writeZeroes(10, blockSize);
    await disk.discard(blockSize, blockSize * 2);
    const before = await disk.read(0, length);
    expectBytes(await (await reopen()).read(0, length), before, 'after opening again');
  },

  'grows with zeroes, and shrinks only when asked to': async (context) => {
    const { disk, reopen, subject, length, blockSize } = context;
    const longer = length + (subject.lengthUnit ?? 1) * Math.ceil((3 * blockSize) / (subject.lengthUnit ?? 1));
    const model = await filled(context);
    if (!(await isSupported(disk.resize(longer)))) return;
    model.truncate(longer);
    expectThat(disk.length === longer, `the length is ${disk.length} instead of ${longer}`);
    await expectContent(disk, model.bytes, 'grown');
    await disk.write(longer - 600, new Uint8Array(600).fill(8));
    model.write(longer - 600, new Uint8Array(600).fill(8));
    await expectContent(disk, model.bytes, 'written where it grew');
    await expectCode(disk.resize(length), ['EINVAL', 'ENOTSUP'], 'shrinking without being asked to');
    if (!(await isSupported(disk.resize(length, { shrink: true })))) return;
    model.truncate(length);
    await expectContent(disk, model.bytes, 'shrunk');
    await disk.resize(longer);
    model.truncate(longer);
    await expectContent(disk, model.bytes, 'grown again');
    await expectStatus(context, model.bytes);
    if (subject.persistent === false) return;
    const again = await reopen();
    expectThat(again.length === longer, `the length is ${again.length} instead of ${longer} after opening again`);
    await expectContent(again, model.bytes, 'after opening again');
  },

  'finds nothing wrong when checked': async (context) => {
    const { disk, blockSize } = context;
    await filled(context);
    await disk.discard(blockSize, blockSize);
    await disk.flush();
    const findings: string[] = [];
    const supported = await isSupported(
      disk
        .check({ repair: 'none', finding: (line) => void findings.push(line) })
        .then(({ corruptions, checkErrors }) => {
          expectThat(corruptions === 0 && checkErrors === 0, `the check found: ${findings.join('; ')}`);
        }),
    );
    expectThat(supported || findings.length === 0, 'a check that is not supported finds nothing');
  },
};
