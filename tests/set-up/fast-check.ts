import { configureGlobal } from 'fast-check';
import { testSeed } from './seed.ts';

configureGlobal({ seed: testSeed });
