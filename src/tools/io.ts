/** The program `diskwright-io`: qemu-io's command line. */
import { basename } from 'node:path';
import { ioProgram } from './io/program.ts';
import { endWithProgram } from './program.ts';

const [, path = '', ...words] = process.argv;
void endWithProgram({ name: basename(path), qemu: true }, ioProgram(words));
