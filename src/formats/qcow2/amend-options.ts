/** Options of an existing image that can be changed (Q-AM-1, Q-AM-2). */
import { type OptionSchema, type OptionTree, option, parseOptions } from '../../core/options.ts';
import { createOptions } from './create-options.ts';

/** Undefined: not given, and left as it is. */
export interface Qcow2AmendOptions {
  readonly size: number | undefined;
  readonly compat: string | undefined;
  readonly backing_file: string | undefined;
  readonly backing_fmt: string | undefined;
  readonly data_file: string | undefined;
  readonly data_file_raw: boolean | undefined;
  readonly 'encrypt.state': string | undefined;
  readonly 'encrypt.new-secret': string | undefined;
  readonly 'encrypt.old-secret': string | undefined;
  readonly 'encrypt.keyslot': number | undefined;
  readonly 'encrypt.iter-time': number | undefined;
  readonly lazy_refcounts: boolean | undefined;
  readonly refcount_bits: number | undefined;
}

const unset = { fallback: undefined } as const;
const text = (help: string) => option.text<string | undefined>({ help, ...unset });
const number = (help: string) => option.number<number | undefined>({ help, ...unset });
const boolean = (help: string) => option.boolean<boolean | undefined>({ help, ...unset });

export const amendOptions: OptionSchema<Qcow2AmendOptions> = {
  size: option.size<number | undefined>({ help: createOptions.size.help, ...unset }),
  compat: text(createOptions.compat.help),
  backing_file: text(createOptions.backing_file.help),
  backing_fmt: text(createOptions.backing_fmt.help),
  data_file: text(createOptions.data_file.help),
  data_file_raw: boolean(createOptions.data_file_raw.help),
  'encrypt.state': text('Select new state of affected keyslots (active/inactive)'),
  'encrypt.new-secret': text('New secret to set in the matching keyslots. Empty string to erase'),
  'encrypt.old-secret': text('Select all keyslots that match this password'),
  'encrypt.keyslot': number('Select a single keyslot to modify explicitly'),
  'encrypt.iter-time': number(createOptions['encrypt.iter-time'].help),
  lazy_refcounts: boolean(createOptions.lazy_refcounts.help),
  refcount_bits: number(createOptions.refcount_bits.help),
};

/** Throws BlockError EINVAL for values that cannot be. */
export function parseAmendOptions(tree: OptionTree): Qcow2AmendOptions {
  return parseOptions(amendOptions, tree).values;
}

/** Whether anything about key slots is asked for (Q-AM-5). */
export function namesKeySlots(options: Qcow2AmendOptions): boolean {
  return Object.entries(options).some(([name, value]) => name.startsWith('encrypt.') && value !== undefined);
}
