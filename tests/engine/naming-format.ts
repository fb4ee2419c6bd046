/** A format whose images may name one below them, as its options say; it stores nothing itself. */
import { defineFormat, type FormatSpec } from '../../src/core/driver.ts';
import { option } from '../../src/core/options.ts';

interface NamingOptions {
  readonly names: string;
  readonly format: string;
}

const text = option.text({ help: '', fallback: '' });

export const namingFormat: FormatSpec<NamingOptions> = defineFormat<NamingOptions>({
  name: 'naming',
  summary: 'shows what is below',
  options: { names: text, format: text },
  supportsBacking: true,
  async open({ file, child, options: { names, format } }) {
    const below = () => child('backing') ?? file;
    return {
      length: () => below().length(),
      read: (offset, target) => below().read(offset, target),
      write: (offset, source) => file.write(offset, source),
      status: async (_offset, length) => ({ kind: 'unallocated', length }),
      backing: () => (names === '' ? undefined : { filename: names, format }),
      // A fresh one reads as zeroes, as long as there is nothing below it.
      zeroInit: () => true,
    };
  },
});
