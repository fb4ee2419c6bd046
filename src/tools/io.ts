/** The program `diskwright-io`: qemu-io's command line. */
import { basename } from 'node:path';
import { ObjectList } from './command-line/objects.ts';
import { runProgramIo } from './io/program.ts';
import { endWithProgram } from './program.ts';
import { interruptSignal } from './signals.ts';

void endWithProgram(
  { name: basename(process.argv[1] ?? ''), qemu: true },
  {
    run: (program) => {
      const context = {
        ...program,
        words: [],
        objects: new ObjectList(),
        get signal() {
          return interruptSignal();
        },
      };
      return runProgramIo(context, process.argv.slice(2));
    },
    // Its help is printed where it is asked for; only lists of objects' options come this way.
    help: async () => '',
  },
);
