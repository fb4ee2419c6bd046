/** The drivers that the commands know. */
export { DRIVERS } from '../drivers.ts';
