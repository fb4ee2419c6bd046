/** All drivers and a stand-in for qcow2, in the place of src/drivers.ts in programs that tests build. */
import { DRIVERS as REAL } from '../../src/drivers.ts';
import { standIn } from './stand-in.ts';

export const DRIVERS = [...REAL, standIn('qcow2')];
