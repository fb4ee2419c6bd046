/** Milliseconds that only go on. Not those of `performance`, which takes one to load. */
export function monotonic(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
