/**
 * The seed of everything random in the tests: fixed, so that runs are alike, unless DISKWRIGHT_SEED says otherwise
 * (the long mode picks one by the clock). It is printed at the start of each run.
 */
export const testSeed: number = Number(process.env.DISKWRIGHT_SEED ?? 20_261_121) >>> 0;

/** Whether the long modes run: `npm run test:long`. */
export const longMode: boolean = process.env.DISKWRIGHT_LONG === '1';
