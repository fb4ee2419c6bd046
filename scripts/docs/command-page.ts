/** docs/commands.md, from the tables that the commands parse by. */
import type { Command } from '../../src/tools/command.ts';
import type { OptionSpec } from '../../src/tools/command-line/getopt.ts';
import { type IoCommand, usageLine } from '../../src/tools/io/command.ts';

const INTRODUCTION = `# Commands

<!-- Made by \`npm run docs\` from the tables that the commands parse by. -->

Two programs with one set of commands:

- **\`diskwright\`** is for people and new scripts. It guesses the format of a new image from its name, shows a progress bar on a terminal and says more.
- **\`diskwright-img\`** takes the place of \`qemu-img\` in scripts: the same options, output, messages and exit statuses, to the letter. Called through a link, its messages
  begin with the link's name, as scripts that look for \`qemu-img: …\` need.

**\`diskwright-io\`** takes the place of \`qemu-io\` in the same way; \`diskwright io\` is the same shell for people, see [io](#io).

**Help:** \`diskwright help COMMAND\`, or \`diskwright COMMAND --help\`.

Both follow GNU conventions: options and operands in any order, \`--\` ends options, short options bundle, long ones may be abbreviated.

**Sizes** are bytes, or have a suffix: \`k\`, \`M\`, \`G\`, \`T\`, \`P\`, \`E\` are powers of 1024; fractions (\`1.5G\`) are fine.

**Image names** are file names, \`json:{…}\` texts, \`PROTOCOL:…\`, or with \`--image-opts\` option strings such as \`driver=vdi,file.filename=disk.vdi\`.
The options of each driver are in [drivers/](drivers/).

**Progress:** \`-p\` prints percentages on standard output as qemu-img does; \`--progress=json\` prints one JSON object a line on standard error, for programs; \`SIGUSR1\` prints where the work is.

**Interruption:** a target gets its name when it is complete. A \`convert\` or \`dd\` that fails or is killed leaves no file that looks whole.

**Exit status:** 0 success, 1 failure, but

| command | status |
| --- | --- |
| \`check\` | 0 clean, also after repair; 1 could not check; 2 corrupt; 3 leaks only; 63 the format has no check |
| \`compare\` | 0 same; 1 different, or misuse; 2 could not open; 3 block status failed; 4 reading failed |
| \`crashlab\` | 0 all states survive; 1 one fails; 2 the lab could not be run, or misuse |

Options marked ● are not in qemu-img.

## Where diskwright-img and qemu-img differ

Output is that of QEMU 8.2, which \`--version\` names: beside an older one, \`info\` also tells of the file below an image (\`Child node '/file'\`, in JSON \`children\`). Other differences are:

- Images of VMDK, VHD (vpc), VHDX, QED, Parallels, Bochs, cloop, DMG, qcow of version 1 and plain LUKS are known by their first bytes and refused, unless \`-f raw\` asks for their bytes.
  Names of other protocols (\`http:\`, \`ssh:\`, \`fat:\` and so on) are unknown.
- \`create\` with options that cannot be leaves the image that is there as it is; qemu-img deletes it. Whatever is made by \`convert\` and \`dd\` has its name when it is complete.
- Preallocated qcow2 images hold the same, with tables in other places; new images are the same to the byte otherwise, but for what is random.
- A static VDI has its data at 1 MiB, as VirtualBox makes it, and \`preallocation=metadata\` works.
  Blocks of a dynamic one that hold zeroes only are not stored, with \`convert -S 0\` neither.
- Images whose backing files form a loop are refused; qemu-img never ends.
- \`--help\` is in words of our own. \`-p\` may show other percentages between the first and the last.
- Names are UTF-8; others are refused.

What else is different about a format is in [vdi.md](vdi.md) and [qcow2.md](qcow2.md), about serving in [nbd.md](nbd.md).
`;

function optionCell({ short, long, argument }: OptionSpec): string {
  const names = [short === undefined ? [] : `-${short}`, long === undefined ? [] : `--${long}`].flat();
  return `\`${names.join('`, `')}${argument === undefined ? '' : ` ${argument}`}\``;
}

/** The commands of the shell. */
function shellSection(commands: readonly IoCommand[]): string {
  const rows = commands.map((command) => {
    const [words = '', text] = usageLine(command).split(' -- ');
    const alias = command.alias === undefined ? '' : `, \`${command.alias}\``;
    return `| \`${words.trim().replaceAll('|', '\\|')}\`${alias}${command.beyond ? ' ●' : ''} | ${text} |`;
  });
  return [
    '### Commands of the shell',
    '',
    'Words are separated by blanks, and nothing is quoted. Requests of `aio_read` and `aio_write` run beside the commands',
    'and tell what came of them when they end. `help COMMAND` tells more.',
    '',
    '| command | what it does |',
    '| --- | --- |',
    ...rows,
    '',
    'Breakpoints and `fault` need the image to be open through blkdebug:',
    '',
    '```console',
    "$ diskwright io -f raw -c 'fault add pwritev errno=ENOSPC once' -c 'write 0 4k' -c 'fault list' blkdebug::disk.img",
    'rule 1',
    'write failed: No space left on device',
    '```',
    '',
    'At the end, at `close` and at `aio_flush` requests that are still suspended at a breakpoint go on.',
    '',
  ].join('\n');
}

function section(command: Command): string {
  const { name, summary, operands, description, examples } = command;
  const rows = command.options
    .filter(({ unavailable }) => !unavailable)
    .map((spec) => `| ${optionCell(spec)}${spec.beyond ? ' ●' : ''} | ${spec.help.replaceAll('|', '\\|')} |`);
  return [
    `## ${name}`,
    '',
    `${summary}.`,
    '',
    `    diskwright ${name} [OPTIONS] ${operands}`,
    '',
    ...(description === undefined ? [] : [description, '']),
    ...(rows.length === 0 ? [] : ['| option | meaning |', '| --- | --- |', ...rows, '']),
    '```sh',
    ...examples.map((example) => `diskwright ${example}`),
    '```',
    '',
  ].join('\n');
}

export function commandPage(commands: readonly Command[], shell: readonly IoCommand[]): string {
  const sections = commands.flatMap((command) =>
    command.name === 'io' ? [section(command), shellSection(shell)] : [section(command)],
  );
  return [INTRODUCTION, ...sections].join('\n');
}
