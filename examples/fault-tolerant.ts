/** A counter kept in two copies, tried on disks that fail: the wrong one and the right one. */
import type { Disk } from 'diskwright';
import { expectFaultTolerant, FaultToleranceError } from 'diskwright/testing';

const SECTOR = 512;

/** Counts up, in two copies by turns, each with its number: the last whole one counts. */
async function count(disk: Disk, number: number): Promise<void> {
  const sector = new Uint8Array(SECTOR).fill(number);
  await disk.write((number % 2) * SECTOR, sector);
}

/** The largest number of which a copy has it everywhere, or, carelessly, at its beginning. */
async function counted(disk: Disk, careful: boolean): Promise<number> {
  const copies = [await disk.read(0, SECTOR), await disk.read(SECTOR, SECTOR)];
  const whole = copies.filter((copy) => !careful || copy.every((byte) => byte === copy[0]));
  return Math.max(0, ...whole.map(([number = 0]) => number));
}

async function tryCounter(careful: boolean): Promise<void> {
  const report = await expectFaultTolerant(
    async (disk, { stop }) => {
      let confirmed = 0;
      for (let number = 1; number <= 5; number++) {
        const done = await count(disk, number).then(
          () => true,
          () => false,
        );
        if (done) confirmed = number;
        else break;
      }
      stop();
      const found = await counted(disk, careful);
      if (found !== confirmed) throw new Error(`${confirmed} was confirmed, ${found} is there`);
    },
    {
      size: 64 * 1024,
      seed: 1,
      runs: 50,
      rules: [
        { event: 'none', ioTypes: ['write'], action: 'torn', bytes: 100, probability: 0.1 },
        { event: 'none', action: 'delay', delayMs: 60_000, probability: 0.5 },
      ],
    },
  );
  console.log(`${report.runs} runs, ${report.faults > 50 ? 'many' : 'few'} faults, none of them did harm`);
}

await tryCounter(false).catch((error) => {
  if (!(error instanceof FaultToleranceError)) throw error;
  console.log(error.message);
});
await tryCounter(true);
