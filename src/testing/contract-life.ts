/** Contract cases: opening read-only, aborting, closing. */
import type { CaseContext, CaseTable } from './contract-subject.ts';
import { operationData } from './disk-operations.ts';
import type { DiskUnderTest } from './disk-under-test.ts';
import { expectBytes, expectCode, expectThat } from './expectations.ts';

async function expectRefusals(disk: DiskUnderTest, codes: readonly string[], what: string): Promise<void> {
  const data = new Uint8Array(512).fill(1);
  await expectCode(disk.write(0, data), codes, `a write ${what}`);
  await expectCode(disk.writeZeroes(0, 512), codes, `a zero write ${what}`);
  await expectCode(disk.discard(0, 512), codes, `a discard ${what}`);
  await expectCode(disk.resize(disk.length + 1024 * 1024), [...codes, 'ENOTSUP'], `a truncate ${what}`);
  expectThat(!disk.tryWriteNow(0, data), `an immediate write ${what} must be refused`);
}

async function expectClosed({ disk }: CaseContext): Promise<void> {
  const code = ['ENOMEDIUM'];
  await expectCode(disk.read(0, 512), code, 'a read after closing');
  await expectCode(disk.write(0, new Uint8Array(512)), code, 'a write after closing');
  await expectCode(disk.flush(), code, 'a flush after closing');
  await expectCode(disk.status(0, 512), code, 'block status after closing');
  expectThat(!disk.tryReadNow(0, new Uint8Array(512)), 'an immediate read after closing must be refused');
  expectThat(!disk.tryWriteNow(0, new Uint8Array(512)), 'an immediate write after closing must be refused');
  expectThat(disk.tryStatusNow(0, 512) === undefined, 'immediate status after closing must be refused');
}

export const lifeCases: CaseTable = {
  'refuses changes when opened read-only': async (context) => {
    const { disk, subject, reopen, length } = context;
    const persistent = subject.persistent !== false && subject.forgetful !== true;
    const data = persistent ? operationData(3, length) : new Uint8Array(length);
    if (persistent) await disk.write(0, data);
    const again = await reopen({ writable: false });
    expectThat(!again.writable, 'the disk says that it is not writable');
    await expectRefusals(again, ['EPERM', 'EACCES', 'EROFS'], 'to a read-only disk');
    await again.flush();
    expectBytes(await again.read(0, length), data, 'after refused writes');
  },

  'closes twice, and answers nothing afterwards': async (context) => {
    const { disk, made } = context;
    await Promise.all([disk.close(), disk.close()]);
    await disk.close();
    await expectClosed(context);
    expectThat((made.openFiles?.() ?? []).length === 0, `still open: ${made.openFiles?.().join(', ')}`);
  },

  'finishes what is under way before it closes': async (context) => {
    const { disk, subject, reopen, blockSize } = context;
    const writes = Array.from({ length: 8 }, (_, i) =>
      disk.write(i * 700, new Uint8Array(700).fill(i + 1)).then(() => true),
    );
    // Requests start in the turn they are made; closing comes after them.
    const again = await reopen({ writable: false });
    expectThat(
      (await Promise.all(writes)).every((done) => done),
      'all writes are done',
    );
    if (subject.persistent === false || subject.forgetful === true) return;
    for (let i = 0; i < 8; i++) {
      const found = await again.read(i * 700, Math.min(700, blockSize));
      expectThat(
        found.every((byte) => byte === i + 1),
        `write ${i} is there after opening again`,
      );
    }
  },

  'does not open when it was aborted before, and leaves nothing open': async ({ disk, made }) => {
    await disk.close();
    const aborter = new AbortController();
    aborter.abort();
    const opened = await made.open({ signal: aborter.signal }).then(
      (other) => other,
      () => undefined,
    );
    await opened?.close();
    expectThat(opened === undefined, 'opening must be refused');
    expectThat((made.openFiles?.() ?? []).length === 0, `still open: ${made.openFiles?.().join(', ')}`);
  },
};
