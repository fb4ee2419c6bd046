import { describe, expect, test } from 'vitest';
import { addressText, type NbdTarget, nbdName, parseLegacyName, parseNbdUri, withPort } from './address.ts';
import { addressOf, nameOptions, parseServer } from './target-options.ts';

const inet = (host: string, port = 10809) => ({ type: 'inet', host, port });

describe('URIs (N-1)', () => {
  const URIS: readonly (readonly [string, object])[] = [
    ['nbd://h', { address: inet('h'), export: '', tls: 'off' }],
    ['nbd://h:1/', { address: inet('h', 1), export: '' }],
    ['NBD://h:65535/x', { address: inet('h', 65535), export: 'x' }],
    ['nbd+tcp://h:/x', { address: inet('h'), export: 'x' }],
    ['nbd://[::1]:9/x', { address: inet('::1', 9), export: 'x' }],
    ['nbds://alice@h/x', { address: inet('h'), tls: 'require', username: 'alice' }],
    ['nbd+unix:///x?socket=/a/b', { address: { type: 'unix', path: '/a/b' }, export: 'x', tls: 'off' }],
    ['nbds+unix://u@/x?socket=/a', { address: { type: 'unix', path: '/a' }, tls: 'require', username: 'u' }],
    // The abstract namespace (N-3).
    ['nbd+unix:///?socket=%00name', { address: { type: 'unix', path: '\0name' } }],
    ['nbd+unix:?socket=a', { address: { type: 'unix', path: 'a' }, export: '' }],
  ];
  test.each(URIS)('%s', (uri, target) => {
    expect(parseNbdUri(uri)).toMatchObject(target);
  });

  const NAMES = [
    ['', ''],
    ['/', ''],
    ['//a', '/a'],
    ['/a%20b', 'a b'],
    ['/%C3%A9', '\u00e9'],
    [`/${'x'.repeat(4096)}`, 'x'.repeat(4096)],
  ] as const;
  test.each(NAMES)('the export of path %j (N-2)', (path, name) => {
    expect(parseNbdUri(`nbd://h${path}`).export).toBe(name);
  });

  const BAD: readonly (readonly [string, string, string])[] = [
    ['nbd+vsock://2/x', 'ENOTSUP', 'NBD over vsock is not supported'],
    ['nbds+vsock://2/x', 'ENOTSUP', 'NBD over vsock is not supported'],
    ['http://h/x', 'EINVAL', "Unknown NBD URI scheme 'http'"],
    ['nbd:///x', 'EINVAL', "The URI 'nbd:///x' has no host"],
    ['nbd://h:0/', 'EINVAL', "'0' is no port number from 1 to 65535"],
    ['nbd://h:65536/', 'EINVAL', "'65536' is no port number from 1 to 65535"],
    ['nbd+unix:///x', 'EINVAL', "The URI 'nbd+unix:///x' has no socket"],
    ['nbd://h/?socket=/a', 'EINVAL', "The URI 'nbd://h/?socket=/a' is not one of a unix socket, but has one"],
    [
      'nbd+unix:///?socket=/a&socket=/b',
      'EINVAL',
      "The URI 'nbd+unix:///?socket=/a&socket=/b' has the key 'socket' more than once",
    ],
    [
      'nbd+unix://h/?socket=/a',
      'EINVAL',
      "The URI 'nbd+unix://h/?socket=/a' is one of a unix socket and has a host; tls-hostname says whom the certificate is for",
    ],
    ['nbd://h/a%00b', 'EINVAL', 'The name of an export holds a NUL'],
    [`nbd://h/${'x'.repeat(4097)}`, 'EINVAL', 'The name of an export is longer than 4096 bytes'],
    ['nbd://h/%FF', 'EINVAL', "The URI 'nbd://h/%FF' has an escape that is no valid UTF-8"],
    ['nbd://h/?colour=red', 'EINVAL', "The URI 'nbd://h/?colour=red' has the unknown key 'colour'"],
    [
      'nbds://h/?tls-type=anon',
      'EINVAL',
      "The URI 'nbds://h/?tls-type=anon' asks for TLS of type 'anon', which is not supported",
    ],
    [
      'nbds://h/?tls-verify-peer=yes',
      'EINVAL',
      "tls-verify-peer of the URI 'nbds://h/?tls-verify-peer=yes' is neither 0 nor 1",
    ],
    ['nbd://h:x/', 'EINVAL', "Cannot parse the host of the URI 'nbd://h:x/'"],
  ];
  test.each(BAD)('%s is refused', (uri, code, message) => {
    expect(() => parseNbdUri(uri)).toThrow(expect.objectContaining({ code, message }));
  });

  test('keys of TLS, and x- keys, which are ignored (N-4)', () => {
    const uri = 'nbds://h/?tls-certificates=/pki&tls-hostname=other&tls-verify-peer=0&tls-type=x509&x-mine=1';
    expect(parseNbdUri(uri)).toMatchObject({ tlsCertificates: '/pki', tlsHostname: 'other', tlsVerifyPeer: false });
    expect(parseNbdUri('nbds://h/?tls-psk-file=keys.psk')).toMatchObject({ tlsPskFile: 'keys.psk' });
  });
});

describe('legacy names (N-5)', () => {
  const NAMES: readonly (readonly [string, object])[] = [
    ['nbd:h:1', { address: inet('h', 1), export: '' }],
    ['nbd:h:1:exportname=a:b:exportname=c', { address: inet('h', 1), export: 'a:b:exportname=c' }],
    ['nbd:unix:/a/b', { address: { type: 'unix', path: '/a/b' }, export: '' }],
    ['nbd:unix:/a:exportname=e', { address: { type: 'unix', path: '/a' }, export: 'e' }],
    ['nbd:[::1]:1', { address: inet('::1', 1) }],
    ['nbd:h: +7', { address: inet('h', 7) }],
    ['nbd:h:web:exportname=e', { address: { type: 'inet', host: 'h', port: 'web' }, export: 'e' }],
  ];
  test.each(NAMES)('%s', (name, target) => {
    expect(parseLegacyName(name)).toMatchObject(target);
  });
  const BAD: readonly (readonly [string, string])[] = [
    ['nbd:h', "error parsing address 'h'"],
    ['nbd:h:', "error parsing address 'h:'"],
    ['nbd:h:65536', "'65536' is no port number from 1 to 65535"],
    ['nbd:', 'NBD server address missing'],
  ];
  test.each(BAD)('%s is refused as qemu-img does: %s', (name, message) => {
    expect(() => parseLegacyName(name)).toThrow(expect.objectContaining({ code: 'EINVAL', message }));
  });
});

describe('the name that a node shows (N-5)', () => {
  const SHOWN: readonly (readonly [string, string])[] = [
    ['nbd://h/', 'nbd://h:10809'],
    ['nbd:h:1:exportname=e', 'nbd://h:1/e'],
    ['nbd://[::1]/a%20b/c', 'nbd://[::1]:10809/a%20b/c'],
    ['nbd+unix:?socket=/a', 'nbd+unix://?socket=/a'],
    ['nbd:unix:/a:exportname=e', 'nbd+unix:///e?socket=/a'],
    ['nbd+unix:///e?socket=/a%26b%25%00', 'nbd+unix:///e?socket=/a%26b%25%00'],
    ['nbds://me@h/e?tls-psk-file=k&tls-verify-peer=0', 'nbds://me@h:10809/e?tls-psk-file=k&tls-verify-peer=0'],
  ];
  test.each(SHOWN)('%s is shown as %s', (name, shown) => {
    const target: NbdTarget = /^nbd:[^/]/.test(name) ? parseLegacyName(name) : parseNbdUri(name);
    expect(nbdName(target)).toBe(shown);
    // It leads to the same place.
    expect(nbdName(parseNbdUri(shown))).toBe(shown);
  });
  test('a descriptor has none, nor has a service', () => {
    expect(nbdName(parseLegacyName('nbd:h:web'))).toBeUndefined();
    expect(nbdName({ address: { type: 'fd', fd: 3 }, export: '', tls: 'off' })).toBeUndefined();
  });
});

describe('ports that are services (N-5, N-6)', () => {
  const service = async (name: string) => (name === 'web' ? 80 : undefined);

  test('are looked up by the host', async () => {
    expect(await withPort({ type: 'inet', host: 'h', port: 'web' }, service)).toEqual(inet('h', 80));
    expect(await withPort({ type: 'inet', host: 'h', port: 7 }, undefined)).toEqual(inet('h', 7));
    expect(await withPort({ type: 'unix', path: '/a' }, undefined)).toEqual({ type: 'unix', path: '/a' });
  });

  test.each([service, undefined])('that are not known are refused in the words of QEMU', async (known) => {
    const message = 'address resolution failed for h:x: Servname not supported for ai_socktype';
    await expect(withPort({ type: 'inet', host: 'h', port: 'x' }, known)).rejects.toMatchObject({
      code: 'EINVAL',
      message,
    });
  });
});

describe('options (N-6)', () => {
  const none = { server: undefined, host: undefined, port: undefined, path: undefined, export: '' };

  test('nested and flat addresses', () => {
    expect(parseServer({})).toBeUndefined();
    expect(parseServer({ type: 'inet', host: 'h', port: '7', ipv4: 'on' })).toEqual(inet('h', 7));
    expect(parseServer({ type: 'unix', path: '/a' })).toEqual({ type: 'unix', path: '/a' });
    expect(parseServer({ type: 'unix', path: 'a', abstract: 'on' })).toEqual({ type: 'unix', path: '\0a' });
    const wide = parseServer({ type: 'unix', path: 'a', abstract: 'on', tight: 'off' });
    expect(wide).toEqual({ type: 'unix', path: `\0a${'\0'.repeat(106)}` });
    expect(wide && addressText(wide)).toBe('@a');
    expect(parseServer({ type: 'fd', str: '7' })).toEqual({ type: 'fd', fd: 7 });
    expect(addressOf({ ...none, host: 'h' })).toEqual(inet('h'));
    expect(addressOf({ ...none, host: 'h', port: '1' })).toEqual(inet('h', 1));
    expect(addressOf({ ...none, path: '/a' })).toEqual({ type: 'unix', path: '/a' });
  });

  const BAD: readonly (readonly [object, string])[] = [
    [{ path: '/a', host: 'h' }, 'path and host may not be used at the same time'],
    [{}, 'NBD server address missing'],
    [{ port: '1' }, 'NBD server address missing'],
    [{ host: 'h', port: '0' }, "'0' is no port number from 1 to 65535"],
  ];
  test.each(BAD)('%j is refused', (options, message) => {
    expect(() => addressOf({ ...none, ...options })).toThrow(expect.objectContaining({ message }));
  });

  const BAD_SERVERS: readonly (readonly [Record<string, string>, string, string])[] = [
    [{ type: 'vsock', cid: '2', port: '1' }, 'ENOTSUP', 'NBD over vsock is not supported'],
    [{ type: 'tcp' }, 'EINVAL', "Parameter 'type' does not accept value 'tcp'"],
    [{ host: 'h' }, 'EINVAL', "Parameter 'type' is missing"],
    [{ type: 'unix' }, 'EINVAL', "Parameter 'path' is missing"],
    [{ type: 'inet', host: 'h' }, 'EINVAL', "Parameter 'port' is missing"],
    [{ type: 'unix', path: 'a', host: 'h' }, 'EINVAL', "Parameter 'host' is unexpected"],
    [{ type: 'fd', str: 'socket' }, 'EINVAL', 'Unable to parse FD number socket'],
  ];
  test.each(BAD_SERVERS)('server %j is refused', (tree, code, message) => {
    expect(() => parseServer(tree)).toThrow(expect.objectContaining({ code, message }));
  });

  test('names become options', () => {
    expect(nameOptions('nbd+unix:///e?socket=/a')).toEqual({ 'server.type': 'unix', 'server.path': '/a', export: 'e' });
    expect(nameOptions('NBD:h:1')).toEqual({ 'server.type': 'inet', 'server.host': 'h', 'server.port': '1' });
    expect(nameOptions('nbds://u@h/?tls-psk-file=k')).toMatchObject({
      tls: true,
      'tls-username': 'u',
      'tls-psk-file': 'k',
    });
  });
});
