import { describe, expect, test } from 'vitest';
import { CrashFailure, exploreCrashes } from './crash-explorer.ts';
import { SimHost } from './sim-host.ts';

/** A record of two parts: data, and a mark that says the data is there. */
function scenario(barrier: boolean) {
  return {
    start() {
      const host = new SimHost();
      host.put('/record', 8192);
      return host;
    },
    async workload(host: SimHost) {
      const file = await host.files.open('/record', { write: true });
      for (let turn = 1; turn <= 3; turn++) {
        await file.write(4096, new Uint8Array(1024).fill(turn));
        if (barrier) await file.flush();
        await file.write(0, new Uint8Array([turn]));
        await file.flush();
        host.note(turn);
      }
      await file.close();
    },
    async check(host: SimHost, { notes }: { notes: readonly unknown[] }) {
      const content = host.contents('/record');
      const turn = content[0] ?? 0;
      if (turn < notes.length) throw new Error(`turn ${notes.length} was flushed, the mark says ${turn}`);
      const data = content.subarray(4096, 5120);
      if (data.some((byte) => byte < turn)) throw new Error(`the mark says ${turn}, the data is older`);
    },
  };
}

describe('exploreCrashes', () => {
  test('passes a workload with its barrier in place', async () => {
    const { cuts, states } = await exploreCrashes(scenario(true), { statesPerCut: 40 });
    expect(cuts).toBe(16);
    expect(states).toBeGreaterThan(15);
  });

  test('finds the state that a missing barrier allows, and loses no more than it takes', async () => {
    const failure = await exploreCrashes(scenario(false), { statesPerCut: 40 }).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toBeInstanceOf(CrashFailure);
    expect(failure).toMatchObject({
      message: expect.stringContaining('the mark says 1, the data is older'),
      missing: [expect.stringMatching(/^(loses|tears) #0.*write 1024 at 4096/)],
    });
  });

  test('checks no state twice', async () => {
    const host = new SimHost();
    host.put('/a', new Uint8Array(512));
    const seen: string[] = [];
    const { repeated } = await exploreCrashes(
      {
        start: () => host,
        async workload() {
          const file = await host.files.open('/a', { write: true });
          for (let i = 0; i < 4; i++) await file.write(0, new Uint8Array([i % 2]));
        },
        async check(after) {
          seen.push(after.contents('/a').join());
        },
      },
      { statesPerCut: 50 },
    );
    expect(seen.length).toBe(new Set(seen).size);
    expect(repeated).toBeGreaterThan(0);
  });
});
