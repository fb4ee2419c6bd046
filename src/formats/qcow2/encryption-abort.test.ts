/** Headers that ask for minutes of work before they tell whether a passphrase is right. */
import { expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import { secrets } from '../../crypto/secrets.ts';
import { nodeCrypto } from '../../node/crypto.ts';
import { SimHost } from '../../testing/index.ts';

const KEY = { 'encrypt.key-secret': 's' };
/** Behind header, refcount table, block and L1 table. */
const LUKS_AT = 4 * 65536;
const FIRST_SLOT = 208;

test('Q-CRYPT-3: an opening that derives for minutes ends at once when it is aborted', async () => {
  const host = Object.assign(new SimHost({ record: false }), { crypto: nodeCrypto });
  secrets(host).set('s', 'open sesame');
  const options = { ...KEY, 'encrypt.format': 'luks', 'encrypt.iter-time': 1 };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 1 << 20, options });
  const bytes = host.contents(PATH).slice();
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  expect(view.getUint32(LUKS_AT)).toBe(0x4c554b53);
  view.setUint32(LUKS_AT + FIRST_SLOT + 4, 2 ** 28);
  host.put('/hostile.qcow2', bytes);
  const controller = new AbortController();
  const { signal } = controller;
  const crypto = nodeCrypto();
  const pbkdf2: typeof crypto.pbkdf2 = (request) => {
    const deriving = crypto.pbkdf2(request);
    controller.abort(new Error('given up'));
    return deriving;
  };
  Object.assign(host, { crypto: () => ({ ...crypto, pbkdf2 }) });
  const opening = graphOn(host).open('/hostile.qcow2', { format: 'qcow2', driverOptions: KEY, signal });
  await expect(opening).rejects.toThrow('given up');
});
