/** A small store on a disk, tried in the crash lab: with and without the flush that it needs. */
import type { Disk } from 'diskwright';
import { CrashConsistencyError, expectCrashConsistent } from 'diskwright/testing';

const SECTOR = 512;

/** Keys and values, appended record by record from sector 1 on; sector 0 says how many records there are. */
class Store {
  #count = 0;
  readonly #disk: Disk;
  readonly #careful: boolean;

  constructor(disk: Disk, careful: boolean) {
    this.#disk = disk;
    this.#careful = careful;
  }

  async put(key: string, value: string): Promise<void> {
    const record = new Uint8Array(SECTOR);
    record.set(new TextEncoder().encode(JSON.stringify([key, value])));
    await this.#disk.write((1 + this.#count) * SECTOR, record);
    // What the count refers to must be durable before it.
    if (this.#careful) await this.#disk.flush();
    const head = new Uint8Array(SECTOR);
    head[0] = ++this.#count;
    await this.#disk.write(0, head);
    await this.#disk.flush();
  }
}

async function readStore(disk: Disk): Promise<Map<string, string>> {
  const [count = 0] = await disk.read(0, 1);
  const found = new Map<string, string>();
  for (let i = 1; i <= count; i++) {
    const text = new TextDecoder().decode(await disk.read(i * SECTOR, SECTOR)).replaceAll('\0', '');
    if (text === '') throw new Error(`record ${i} of ${count} is missing`);
    const [key, value] = JSON.parse(text);
    found.set(key, value);
  }
  return found;
}

async function tryStore(careful: boolean): Promise<void> {
  const report = await expectCrashConsistent(
    async (disk, mark) => {
      const store = new Store(disk, careful);
      for (const key of ['one', 'two', 'three']) {
        await store.put(key, `value of ${key}`);
        await mark(key);
      }
    },
    async (disk, { marks }) => {
      const found = await readStore(disk);
      for (const key of marks) if (!found.has(key)) throw new Error(`'${key}' was stored, and is gone`);
    },
    { size: 64 * 1024, seed: 1 },
  );
  console.log(`${report.tried} states, all survive`);
}

await tryStore(false).catch((error) => {
  if (!(error instanceof CrashConsistencyError)) throw error;
  console.log(error.message);
});
await tryStore(true);
