/** qemu-io's command line: its own words for what is wrong with it (T-IO-1). */
import { Getopt, type OptionSpec } from '../command-line/getopt.ts';
import { ObjectList } from '../command-line/objects.ts';
import { traceArgument } from '../command-line/trace.ts';
import type { Context } from '../context.ts';
import { versionText } from '../output/version.ts';
import type { ProgramParts } from '../program.ts';
import { interruptSignal } from '../signals.ts';
import { IO_OPTIONS, IoOptions } from './options.ts';
import { runIo } from './run.ts';

const STANDARD_OPTIONS: readonly OptionSpec[] = [
  { short: 'T', long: 'trace', argument: 'TRACE', help: 'specify tracing options' },
  { short: 'h', long: 'help', help: 'show this help' },
  { short: 'V', long: 'version', help: 'show the version' },
];

/** The shell as a program, given the words after its name. */
export function ioProgram(words: readonly string[]): ProgramParts {
  return {
    run: (program) => {
      const context = {
        ...program,
        words: [],
        objects: new ObjectList(),
        get signal() {
          return interruptSignal();
        },
      };
      return run(context, words);
    },
    // Its help is printed where it is asked for; only lists of objects' options come this way.
    help: async () => '',
  };
}

async function run(context: Context, words: readonly string[]): Promise<number> {
  const { dialect, out, messages } = context;
  const { name } = dialect;
  const options = new IoOptions(context);
  const getopt = new Getopt([name, ...words], [...IO_OPTIONS, ...STANDARD_OPTIONS], {
    stopAtOperand: process.env.POSIXLY_CORRECT !== undefined,
  });
  for (let parsed = getopt.next(); parsed !== undefined; parsed = getopt.next()) {
    if (parsed.kind !== 'option') {
      messages.error(parsed.detail);
      out.write(usageText(name));
      return 1;
    }
    const { key, value } = parsed;
    if (key === 'version') {
      out.write(versionText(dialect, name));
      return 0;
    }
    if (key === 'help') {
      out.write(usageText(name));
      return 0;
    }
    if (key === 'trace') traceArgument(value, messages);
    else options.handlers[key]?.(value);
  }
  const [filename, more] = getopt.operands();
  if (more !== undefined) {
    out.write(usageText(name));
    return 1;
  }
  return runIo(context, options.request(filename));
}

function usageText(name: string): string {
  return `Usage: ${name} [OPTIONS]... [-c STRING]... [file]
QEMU Disk exerciser

  --object OBJECTDEF   define an object such as 'secret' for
                       passwords and/or encryption keys
  --image-opts         treat file as option string
  -c, --cmd STRING     execute command with its arguments
                       from the given string
  -f, --format FMT     specifies the block driver to use
  -r, --read-only      export read-only
  -s, --snapshot       use snapshot file
  -n, --nocache        disable host cache, short for -t none
  -C, --copy-on-read   enable copy-on-read
  -m, --misalign       misalign allocations for O_DIRECT
  -k, --native-aio     use kernel AIO implementation
                       (Linux only, prefer use of -i)
  -i, --aio=MODE       use AIO mode (threads, native or io_uring)
  -t, --cache=MODE     use the given cache mode for the image
  -d, --discard=MODE   use the given discard mode for the image
  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]
                       specify tracing options
                       see qemu-img(1) man page for full description
  -U, --force-share    force shared permissions
  -h, --help           display this help and exit
  -V, --version        output version information and exit

See '${name} -c help' for information on available commands.
`;
}
