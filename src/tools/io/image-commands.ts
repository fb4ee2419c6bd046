/** The image as a whole: `flush`, `truncate`, `length`, `info` (T-FLUSH-1, T-TRUNC-1, T-LEN-1, T-INFO-IO). */

import type { Preallocation } from '../../core/driver.ts';
import { BlockError, withErrno } from '../../core/errors.ts';
import { driverInfo } from '../../core/info.ts';
import { Failure } from '../failure.ts';
import { specificLines } from '../output/image-info.ts';
import { imageLength } from './access.ts';
import type { Call, IoCommand } from './command.ts';
import { CommandFailure, wrongUsage } from './failure.ts';
import { sizeOf } from './numbers.ts';
import { ioSize } from './report.ts';
import type { Session } from './session.ts';

export const flushCommand: IoCommand = {
  name: 'flush',
  alias: 'f',
  min: 0,
  max: 0,
  summary: 'flush all in-core file state to disk',
  async run(session) {
    try {
      await session.disk.flush();
    } catch (error) {
      // Where qemu-io is followed only the exit status tells.
      if (!session.context.dialect.qemu || !(error instanceof BlockError)) throw error;
      throw new CommandFailure();
    }
  },
};

const PREALLOCATIONS: readonly Preallocation[] = ['off', 'metadata', 'falloc', 'full'];

export const truncateCommand: IoCommand = {
  name: 'truncate',
  alias: 't',
  min: 1,
  max: 3,
  writes: true,
  usage: '[-m prealloc_mode] off',
  summary: 'truncates the current file at the given offset',
  letters: 'm:',
  details: `
 Gives the image the size OFF. What is behind it is lost.

 Example:
 'truncate -m full 2G' - makes it 2 GiB large, with storage for what is new

 -m, -- how storage for what is new is made: off, metadata, falloc or full`,
  run: truncate,
};

async function truncate(session: Session, call: Call): Promise<void> {
  let preallocation: Preallocation = 'off';
  const given = call.read({
    m(value) {
      const found = PREALLOCATIONS.find((mode) => mode === value);
      if (found === undefined) throw new Failure(`Invalid preallocation mode '${value}'`);
      preallocation = found;
    },
  });
  const [text] = given.operands;
  const length = sizeOf(text ?? wrongUsage());
  const { disk } = session;
  if (!Number.isSafeInteger(length) && disk.node.impl.truncate !== undefined) {
    throw withErrno('EFBIG', 'Could not resize file');
  }
  await disk.resize(length, { preallocation, shrink: true });
}

export const lengthCommand: IoCommand = {
  name: 'length',
  alias: 'l',
  min: 0,
  max: 0,
  summary: 'gets the length of the current file',
  run: (session) => session.line(ioSize(imageLength(session.disk))),
};

export const infoCommand: IoCommand = {
  name: 'info',
  alias: 'i',
  min: 0,
  max: 0,
  summary: 'prints information about the current file',
  run(session) {
    const { node } = session.disk;
    const name = `format name: ${node.driver.name}`;
    session.line(name);
    if (node.driver.kind === 'protocol') session.line(name);
    const info = driverInfo(node);
    if (info === undefined) throw new CommandFailure();
    session.line(`cluster size: ${ioSize(info.clusterSize ?? 0)}`);
    session.line(`vm state offset: ${ioSize(info.vmStateOffset ?? 0)}`);
    for (const line of specificLines({ specific: info.specific })) session.line(line);
  },
};
