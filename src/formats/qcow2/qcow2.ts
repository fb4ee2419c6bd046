/** The format qcow2 (specification: the Q rules). */
import { defineFormat } from '../../core/driver.ts';
import { amendOptions } from './amend-options.ts';
import { checkCreation, create } from './create.ts';
import { createOptions, type Qcow2CreateOptions } from './create-options.ts';
import { hasMagic } from './header.ts';
import { measure } from './measure.ts';
import { openQcow2 } from './node.ts';
import { type Qcow2Options, qcow2Options } from './options.ts';
import { stream } from './stream.ts';

export const qcow2 = defineFormat<Qcow2Options, Qcow2CreateOptions>({
  name: 'qcow2',
  summary: 'QEMU disk images: sparse, with backing files, compression, encryption, external data files',
  options: qcow2Options,
  children: { 'data-file': { role: 'data', optional: true } },
  strongOptions: ['encrypt.key-secret'],
  supportsBacking: true,
  compresses: true,
  temporaryOverlay: {},
  probe: (head) => (hasMagic(head) ? 100 : 0),
  create: {
    options: createOptions,
    openedWith: ['encrypt.format', 'encrypt.key-secret'],
    check: checkCreation,
    run: create,
  },
  amendOptions,
  measure,
  stream,
  open: openQcow2,
});
