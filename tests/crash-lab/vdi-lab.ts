/** The workload that VDI drivers, right and wrong ones, are put through in the crash lab. */
import type * as Kit from '../../src/testing/index.ts';

type TestingKit = typeof Kit;

const BLOCK = 4096;
const BLOCKS = 12;

/** Runs it with the kit, which may be one of its own with a driver of its own. Throws what the lab finds. */
export async function vdiInTheLab(
  kit: TestingKit,
  { seed, states }: { readonly seed: number; readonly states: number },
): Promise<Kit.CrashReport> {
  // What was asked and confirmed, in order.
  const notes = new kit.SimHost();
  const content = (value: number, length = BLOCK) => new Uint8Array(length).fill(value);
  const noted = () => notes.log.flatMap((entry) => (entry.type === 'note' ? [entry.note] : []));
  const marked: number[] = [];
  return kit.expectCrashConsistent(
    async (disk, mark) => {
      const recorded = kit.recordDisk(notes, disk);
      const flush = async () => {
        await recorded.flush();
        marked.push(noted().length);
        await mark(String(noted().length));
      };
      await recorded.write(0, content(1, 2 * BLOCK));
      await flush();
      // Two halves of a new block at one time, and a part of another.
      await Promise.all([
        recorded.write(4 * BLOCK, content(2, BLOCK / 2)),
        recorded.write(4.5 * BLOCK, content(3, BLOCK / 2)),
        recorded.write(7 * BLOCK + 512, content(4, 512)),
      ]);
      await flush();
      // Places are given up, and others are needed.
      await recorded.discard(0, 2 * BLOCK);
      await recorded.write(9 * BLOCK, content(5));
      await flush();
      await recorded.write(2 * BLOCK + 1024, content(6, 700));
      // More is written while a flush is under way.
      const blocks = [5, 6, 8];
      let over = false;
      const flushing = recorded.flush().finally(() => {
        over = true;
      });
      for (let block = blocks.pop(); block !== undefined && !over; block = blocks.pop()) {
        await recorded.write(block * BLOCK, content(7 + block));
      }
      await flushing;
      await flush();
      await recorded.write(11 * BLOCK, content(30));
      await flush();
      await recorded.write(4 * BLOCK, content(31));
      await flush();
      await recorded.discard(9 * BLOCK, 3 * BLOCK);
      await recorded.discard(2 * BLOCK, BLOCK);
      await flush();
    },
    async (disk, { marks }) => {
      const findings: string[] = [];
      const report = await disk.check({ repair: 'none', finding: (line) => void findings.push(line) });
      if (report.corruptions > 0) throw new Error(`the check finds ${findings.join('; ')}`);
      // What was confirmed by the last mark is there; all else may have happened or not.
      const confirmed = Number(marks.at(-1) ?? 0);
      const begun = marked.find((count) => count > confirmed) ?? Number.POSITIVE_INFINITY;
      const known = noted()
        .slice(0, begun)
        .filter((note, i) => i < confirmed || (note as { event: string }).event !== 'flushed');
      await kit.checkDurability(disk, known, new Uint8Array(BLOCKS * BLOCK));
    },
    {
      size: BLOCKS * BLOCK,
      format: 'vdi',
      createOptions: { 'block-size': BLOCK, 'data-align': 512 },
      deviceSize: (BLOCKS + 4) * BLOCK,
      deviceFill: 0xa5,
      seed,
      states,
      host: { latency: { min: 0, max: 2 } },
    },
  );
}
