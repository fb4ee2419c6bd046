/** `fault`: the rules of a blkdebug node, while it is open (BD-60). Ours alone. */
import type { OptionTree } from '../../core/options.ts';
import { type Blkdebug, blkdebugOf } from '../../filters/blkdebug/control.ts';
import type { LiveRule } from '../../filters/blkdebug/engine.ts';
import { parseRule, type Rule, type Section } from '../../filters/blkdebug/rules.ts';
import { plainNumber } from '../command-line/numbers.ts';
import { Failure } from '../failure.ts';
import type { IoCommand } from './command.ts';
import { wrongUsage } from './failure.ts';
import { findNode } from './find-node.ts';
import type { Session } from './session.ts';

export const faultCommand: IoCommand = {
  name: 'fault',
  min: 1,
  beyond: true,
  usage: '(add [set-state] event [key=value..] | list | remove id)',
  summary: 'changes the rules by which blkdebug injects faults',
  details: `
 The image must be open through blkdebug: open blkdebug::disk.vdi

 fault add pwritev errno=ENOSPC once=on     - the next write fails for want of space
 fault add none action=delay delay-ms=50    - every request takes 50 ms longer, from now on
 fault add set-state flush_to_os state=1 new_state=2
 fault list                                 - the rules with how often each has hit
 fault remove 3

 Keys are those of config files: errno (a number or a name), state, sector, offset, length, once, immediately, iotype
 (read, write, write-zeroes, discard, flush, block-status), action (error, delay, torn, corrupt, misdirect, drop,
 reorder) with delay-ms, jitter-ms, bytes, bit, target, and probability, every, after. A key alone means 'on'.`,
  run(session, { words: [action, ...words] }) {
    const control = controlOf(session);
    if (action === 'add') add(session, control, words);
    else if (action === 'list' && words.length === 0) for (const rule of control.rules()) session.line(ruleLine(rule));
    else if (action === 'remove' && words.length === 1) control.remove(plainNumber(words[0] ?? '') ?? wrongUsage());
    else wrongUsage();
  },
};

/** Of the first blkdebug node from the top down. */
function controlOf({ disk }: Session): Blkdebug {
  const node = findNode(disk.node, (driver) => driver === 'blkdebug');
  if (node !== undefined) return blkdebugOf(node);
  throw new Failure('No blkdebug node is there to change: open the image as blkdebug::FILE');
}

function add(session: Session, control: Blkdebug, words: readonly string[]): void {
  const [section, ...rest]: [Section, ...string[]] =
    words[0] === 'set-state' ? ['set-state', ...words.slice(1)] : ['inject-error', ...words];
  const [event, ...settings] = rest;
  if (event === undefined) wrongUsage();
  const tree: OptionTree = { ...(event.includes('=') ? keyAndValue(event) : { event }) };
  const rule = parseRule(section, Object.assign({}, tree, ...settings.map(keyAndValue)));
  session.line(`rule ${control.add(rule)}`);
}

function keyAndValue(word: string): OptionTree {
  const equals = word.indexOf('=');
  return equals < 0 ? { [word]: 'on' } : { [word.slice(0, equals)]: word.slice(equals + 1) };
}

/** `3: pwritev errno=ENOSPC once=on, 2 hits`. */
function ruleLine({ id, rule, hits }: LiveRule): string {
  return `${id}: ${ruleWords(rule).join(' ')}, ${hits} ${hits === 1 ? 'hit' : 'hits'}`;
}

function ruleWords(rule: Rule): string[] {
  const words: string[] = [rule.event];
  const tell = (key: string, value: unknown, fallback: unknown) => {
    if (value !== fallback) words.push(`${key}=${value === true ? 'on' : value}`);
  };
  if (rule.kind === 'set-state') {
    tell('state', rule.state, 0);
    words.push(`new_state=${rule.newState}`);
    return ['set-state', ...words];
  }
  tell('state', rule.state, 0);
  tell('action', rule.action, 'error');
  // A torn write may be told as done, too.
  if (rule.action === 'error' || rule.action === 'torn') words.push(`errno=${rule.errno ?? 0}`);
  tell('offset', rule.range?.offset, undefined);
  tell('length', rule.range?.length, undefined);
  tell('once', rule.once, false);
  tell('immediately', rule.immediately, false);
  if (rule.ioTypes.size === 1) words.push(`iotype=${[...rule.ioTypes].join()}`);
  tell('delay-ms', rule.delayMs, 0);
  tell('jitter-ms', rule.jitterMs, 0);
  tell('bytes', rule.bytes, 0);
  tell('target', rule.target, 0);
  tell('bit', rule.bits[0], undefined);
  tell('probability', rule.probability, 1);
  tell('every', rule.every, 1);
  tell('after', rule.after, 0);
  return words;
}
