import { afterAll, expect } from 'vitest';

/** What files that share a process must leave as it was. */
function state() {
  return { folder: process.cwd(), env: { ...process.env }, umask: process.umask() };
}

const before = state();

afterAll(() => {
  const after = state();
  process.chdir(before.folder);
  expect(after).toEqual(before);
});
