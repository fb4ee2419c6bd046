/** TLS credentials and authorizations as objects of the command line (N-101, N-102, N-105). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ObjectList } from './objects.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-objects-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function objects(...texts: readonly string[]): ObjectList {
  const list = new ObjectList();
  for (const text of texts) list.add(text);
  return list;
}

const NAMES = ['CN=a', 'CN=b', 'CN=long'];
/** Which of the names are let in. */
async function allowed(list: ObjectList): Promise<string[]> {
  const allows = await list.nbd.authorization('z');
  const answers = await Promise.all(NAMES.map(async (name) => allows(name)));
  return NAMES.filter((_name, index) => answers[index]);
}

describe('who may connect (N-105)', () => {
  test('authz-simple: one name, exactly', async () => {
    expect(await allowed(objects('authz-simple,id=z,identity=CN=a'))).toEqual(['CN=a']);
  });

  test('authz-list: rules in order, exact or glob, and what holds for all others; denied by default', async () => {
    const rules = 'rules.0.match=CN=b,rules.0.policy=deny,rules.1.match=CN=?,rules.1.policy=allow,rules.1.format=glob';
    expect(await allowed(objects(`authz-list,id=z,${rules}`))).toEqual(['CN=a']);
    expect(await allowed(objects(`authz-list,id=z,policy=allow,${rules}`))).toEqual(['CN=a', 'CN=long']);
    const json = { 'qom-type': 'authz-list', id: 'z', rules: [{ match: 'CN=b', policy: 'allow', format: 'exact' }] };
    expect(await allowed(objects(JSON.stringify(json)))).toEqual(['CN=b']);
    expect(() => objects('authz-list,id=z,rules.0.match=x,rules.0.policy=maybe')).toThrow(
      "Parameter 'policy' does not accept value 'maybe'",
    );
  });

  test('authz-listfile: the file as it is when a client comes; while it is broken nobody gets in', async () => {
    const file = join(folder, 'rules.json');
    const put = (value: unknown) => writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value));
    put({ rules: [{ match: 'CN=a', policy: 'allow' }] });
    const list = objects(`authz-listfile,id=z,filename=${file}`);
    const fixed = await objects(`authz-list-file,id=z,filename=${file},refresh=no`).nbd.authorization('z');
    expect(await allowed(list)).toEqual(['CN=a']);
    const allows = await list.nbd.authorization('z');
    put({ policy: 'allow', rules: [{ match: 'CN=a', policy: 'deny' }] });
    expect([await allows('CN=a'), await allows('CN=b')]).toEqual([false, true]);
    expect([await fixed('CN=a'), await fixed('CN=b')]).toEqual([true, false]);
    put('{ "rules": [');
    expect([await allows('CN=a'), await allows('CN=b')]).toEqual([false, false]);
    rmSync(file);
    expect(await allows('CN=b')).toBe(false);
  });

  test('authz-listfile: a file that is missing or makes no sense at the start is told of', async () => {
    const file = join(folder, 'wrong.json');
    const opening = () => objects(`authz-listfile,id=z,filename=${file}`).nbd.authorization('z');
    const missing = `Unable to read ${file}: No such file or directory`;
    await expect(opening()).rejects.toMatchObject({ code: 'ENOENT', message: missing });
    writeFileSync(file, '{');
    await expect(opening()).rejects.toThrow(`Unable to parse ${file}: `);
    writeFileSync(file, '{"rules": [{"match": "x", "policy": "maybe"}]}');
    await expect(opening()).rejects.toThrow("Parameter 'policy' does not accept value 'maybe'");
    expect(() => objects('authz-listfile,id=z')).toThrow('filename not provided');
    await expect(objects().nbd.authorization('z')).rejects.toThrow("No authorization object with id 'z'");
  });
});

describe('credentials (N-102)', () => {
  test.each([
    ['q', "No TLS credentials with id 'q'"],
    ['c', 'Expected TLS credentials for a server endpoint'],
    ['a', "Object with id 'a' is not TLS credentials"],
    ['k', "No secret with id 'none'"],
  ])('%s: %s', async (id, text) => {
    for (const name of ['ca-cert', 'server-cert', 'server-key']) writeFileSync(join(folder, `${name}.pem`), '');
    const list = objects(
      `tls-creds-x509,id=c,endpoint=client,dir=${folder}`,
      'authz-simple,id=a,identity=CN=a',
      `tls-creds-x509,id=k,endpoint=server,dir=${folder},passwordid=none`,
    );
    await expect(list.nbd.tlsCredentials(id, 'server')).rejects.toThrow(text);
  });

  test.each([
    ['x509,dir=/nonexist', 'Unable to access credentials /nonexist/ca-cert.pem: No such file or directory'],
    ['psk,dir=/nonexist', 'Unable to access credentials /nonexist/keys.psk: No such file or directory'],
    ['x509,dir=/nonexist,verify-peer=maybe', "Parameter 'verify-peer' expects 'on' or 'off'"],
  ])('that cannot be are refused before anybody uses them: %s', (properties, text) => {
    const [kind, ...rest] = properties.split(',');
    expect(() => objects(`tls-creds-${kind},id=c,endpoint=server,${rest.join(',')}`)).toThrow(text);
  });

  test("shared keys: the client's user, `qemu` unless it is told", async () => {
    writeFileSync(join(folder, 'keys.psk'), `alice:${'ab'.repeat(32)}\n`);
    const creds = (more: string) =>
      objects(`tls-creds-psk,id=p,endpoint=client,dir=${folder}${more}`).nbd.tlsCredentials('p', 'client');
    expect(await creds(',username=alice')).toMatchObject({ kind: 'psk', username: 'alice' });
    await expect(creds('')).rejects.toThrow(`Username qemu not found in PSK file ${join(folder, 'keys.psk')}`);
  });
});
