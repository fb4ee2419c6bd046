/**
 * The leaky bucket, as arithmetic on numbers: requests pour units in, which leak out at the average rate. A request
 * must wait while the bucket is more than full; one that is larger than the bucket may so pass an emptied one.
 */

/** Limits of one bucket, in units (bytes or requests). */
export interface BucketLimits {
  /** Units per second. 0: unlimited. */
  readonly average: number;
  /** Units per second in a burst. 0: no burst beyond a tenth of a second's average. */
  readonly max: number;
  /** Seconds that a burst at `max` may last. At 1, `max` units may pass at once. */
  readonly maxLength: number;
}

/** What is in a bucket, and when that was so. */
export interface Bucket {
  level: number;
  /** The same of the small bucket that limits the rate in a burst longer than a second. */
  burstLevel: number;
  /** Milliseconds. */
  at: number;
}

/** A bucket without limits of its own holds what passes in this part of a second. */
const SLACK = 1 / 10;

/** Shorter waits, in milliseconds, are errors of rounding. */
const NO_WAIT = 1e-3;

export function emptyBucket(now: number): Bucket {
  return { level: 0, burstLevel: 0, at: now };
}

/** Lets leak out what did until `now`, milliseconds. */
export function leak(bucket: Bucket, limits: BucketLimits, now: number): void {
  const seconds = Math.max(0, now - bucket.at) / 1000;
  bucket.at = now;
  bucket.level = Math.max(0, bucket.level - limits.average * seconds);
  bucket.burstLevel = Math.max(0, bucket.burstLevel - limits.max * seconds);
}

/** Milliseconds until the bucket takes a request, as of the last {@link leak}; 0: at once. Capacity is what may pass without waiting. */
export function delay(bucket: Bucket, limits: BucketLimits): number {
  const { average } = limits;
  if (average === 0) return 0;
  const wait = Math.max(untilBelow(bucket.level, capacityOf(limits), average), burstDelay(bucket, limits));
  return wait < NO_WAIT ? 0 : wait;
}

/** Milliseconds for which the bucket could have taken more than it did, as of the last {@link leak}; Infinity: unlimited. */
export function slack(bucket: Bucket, limits: BucketLimits): number {
  const { average, max } = limits;
  if (average === 0) return Number.POSITIVE_INFINITY;
  const own = ((capacityOf(limits) - bucket.level) / average) * 1000;
  return limitsBurst(limits) ? Math.min(own, ((max * SLACK - bucket.burstLevel) / max) * 1000) : own;
}

export function pour(bucket: Bucket, limits: BucketLimits, units: number): void {
  if (limits.average === 0) return;
  bucket.level += units;
  if (limitsBurst(limits)) bucket.burstLevel += units;
}

function capacityOf({ average, max, maxLength }: BucketLimits): number {
  return max === 0 ? average * SLACK : max * maxLength;
}

/** Whether the rate in a burst is limited, not only its size. */
function limitsBurst({ max, maxLength }: BucketLimits): boolean {
  return max > 0 && maxLength > 1;
}

function burstDelay(bucket: Bucket, limits: BucketLimits): number {
  return limitsBurst(limits) ? untilBelow(bucket.burstLevel, limits.max * SLACK, limits.max) : 0;
}

function untilBelow(level: number, capacity: number, perSecond: number): number {
  return (Math.max(0, level - capacity) / perSecond) * 1000;
}
