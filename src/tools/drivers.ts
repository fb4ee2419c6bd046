/** The drivers that the commands know. */
import type { DriverSpec } from '../core/driver.ts';
import { raw } from '../formats/raw.ts';

export const DRIVERS: readonly DriverSpec[] = [raw];
