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
  const journal = new Journal(kit);
  return kit.expectCrashConsistent(
    (disk, mark) => workload(journal.record(disk, mark)),
    async (disk, { marks }) => {
      const findings: string[] = [];
      const report = await disk.check({ repair: 'none', finding: (line) => void findings.push(line) });
      if (report.corruptions > 0) throw new Error(`the check finds ${findings.join('; ')}`);
      await kit.checkDurability(disk, journal.known(Number(marks.at(-1) ?? 0)), new Uint8Array(BLOCKS * BLOCK));
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

type Recorded = Omit<Kit.RecordedDisk<Kit.DiskUnderTest>, 'resize' | 'close' | 'disk'> & {
  /** A flush, and a mark behind it. */
  confirm(): Promise<void>;
};

/** What was asked of the disk and what it confirmed, in order; marks tell how far that had come. */
class Journal {
  readonly #kit: TestingKit;
  readonly #notes: Kit.SimHost;
  readonly #marked: number[] = [];

  constructor(kit: TestingKit) {
    this.#kit = kit;
    this.#notes = new kit.SimHost();
  }

  record(disk: Kit.DiskUnderTest, mark: (name: string) => Promise<void>): Recorded {
    const recorded = this.#kit.recordDisk(this.#notes, disk);
    return {
      ...recorded,
      confirm: async () => {
        await recorded.flush();
        const count = this.#all().length;
        this.#marked.push(count);
        await mark(String(count));
      },
    };
  }

  /** What holds at a power cut behind the mark of that count: all that was confirmed by then; what comes up to the next mark may. */
  known(confirmed: number): unknown[] {
    const begun = this.#marked.find((count) => count > confirmed) ?? Number.POSITIVE_INFINITY;
    return this.#all()
      .slice(0, begun)
      .filter((note, i) => i < confirmed || (note as { event: string }).event !== 'flushed');
  }

  #all(): unknown[] {
    return this.#notes.log.flatMap((entry) => (entry.type === 'note' ? [entry.note] : []));
  }
}

function content(value: number, length = BLOCK): Uint8Array {
  return new Uint8Array(length).fill(value);
}

async function workload(disk: Recorded): Promise<void> {
  await disk.write(0, content(1, 2 * BLOCK));
  await disk.confirm();
  // Two halves of a new block at one time, and a part of another.
  await Promise.all([
    disk.write(4 * BLOCK, content(2, BLOCK / 2)),
    disk.write(4.5 * BLOCK, content(3, BLOCK / 2)),
    disk.write(7 * BLOCK + 512, content(4, 512)),
  ]);
  await disk.confirm();
  // Places are given up, and others are needed.
  await disk.discard(0, 2 * BLOCK);
  await disk.write(9 * BLOCK, content(5));
  await disk.confirm();
  await disk.write(2 * BLOCK + 1024, content(6, 700));
  // More is written while a flush is under way.
  const blocks = [5, 6, 8];
  let over = false;
  const flushing = disk.flush().finally(() => {
    over = true;
  });
  for (let block = blocks.pop(); block !== undefined && !over; block = blocks.pop()) {
    await disk.write(block * BLOCK, content(7 + block));
  }
  await flushing;
  await disk.confirm();
  await disk.write(11 * BLOCK, content(30));
  await disk.confirm();
  await disk.write(4 * BLOCK, content(31));
  await disk.confirm();
  await disk.discard(9 * BLOCK, 3 * BLOCK);
  await disk.discard(2 * BLOCK, BLOCK);
  await disk.confirm();
}
