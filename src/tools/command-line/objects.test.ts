import { describe, expect, test } from 'vitest';
import { secrets } from '../../crypto/secrets.ts';
import { throttleGroups } from '../../filters/throttle/groups.ts';
import { SimHost } from '../../testing/index.ts';
import { HelpRequest } from '../failure.ts';
import { ObjectList } from './objects.ts';

const KEY = 'A'.repeat(32);
const IV = Buffer.from('B'.repeat(16)).toString('base64');

describe('objects (T-GEN-13)', () => {
  const accepted = [
    'secret,id=s,data=x',
    'secret,id=s,data=',
    'secret,id=s,data=a,,b,',
    'secret,id=a.b-c_d,data=eHg=,format=base64',
    'id=s,qom-type=secret,data=x',
    '{"qom-type": "secret", "id": "s", "data": "x"}',
    'throttle-group,id=g0',
    'throttle-group,id=g0,x-iops-total=1,x-iops-total=2,x-iops-total-max=2',
    'throttle-group,id=g0,limits.bps-read=10',
    '{"qom-type": "throttle-group", "id": "g0", "limits": {}}',
  ];
  for (const text of accepted) {
    test(`${text} is taken`, () => expect(() => new ObjectList().add(text)).not.toThrow());
  }

  const refused: readonly (readonly [string, string])[] = [
    ['zork', "Parameter 'qom-type' does not accept value 'zork'"],
    ['', "Parameter 'qom-type' is missing"],
    ['id=s,data=x', "Parameter 'qom-type' is missing"],
    ['secret', "Parameter 'id' is missing"],
    ['secret,data=x', "Parameter 'id' is missing"],
    ['secret,id=s', "Either 'file' or 'data' must be provided"],
    ['secret,id=s,data=x,foo=1', "Parameter 'foo' is unexpected"],
    ['secret,id=s,data=x,format=zork', "Parameter 'format' does not accept value 'zork'"],
    ['secret,id=s,data=e!g=,format=base64', 'Base64 data contains invalid characters'],
    ['throttle-group', "Parameter 'id' is missing"],
    ['throttle-group,x-foo=1', "Parameter 'x-foo' is unexpected"],
    ['throttle-group,id=0g', "Parameter 'id' expects an identifier"],
    ['throttle-group,id=g0,x-bps-total', "Expected '=' after parameter 'x-bps-total'"],
    ['throttle-group,id=g0,x-iops-total=-1', 'Property values cannot be negative'],
    [
      '{"qom-type":"throttle-group","id":"g0","limits":{"iops-total":"5"}}',
      "Invalid parameter type for 'limits.iops-total', expected: integer",
    ],
    ['secret,id=s,data=x,keyid=k', "No secret with id 'k'"],
    ['secret,id=1s,data=x', "Parameter 'id' expects an identifier"],
    ['secret,id=s,data=x,file=y', "'file' and 'data' are mutually exclusive"],
    ['secret,id=s,data', "Expected '=' after parameter 'data'"],
    ['{"qom-type":"secret","id":"s","data":3}', "Invalid parameter type for 'data', expected: string"],
    [
      'secret,id=s,file=/nope/nope',
      'Unable to read /nope/nope: Failed to open file “/nope/nope”: No such file or directory',
    ],
  ];
  for (const [text, message] of refused) {
    test(`${text}: ${message}`, () => expect(() => new ObjectList().add(text)).toThrow(message));
  }

  test('names are used once; a later one may name an earlier one as its key', () => {
    const objects = new ObjectList();
    objects.add(`secret,id=master,data=${KEY}`);
    objects.add(`secret,id=s,keyid=master,iv=${IV},data=5LMIqvqZvDF8UUkkR4Zung==,format=base64`);
    expect(() => objects.add('secret,id=s,data=y')).toThrow(
      "attempt to add duplicate property 's' to object (type 'container')",
    );
    expect(() => objects.add('throttle-group,id=s')).toThrow(
      "attempt to add duplicate property 's' to object (type 'container')",
    );
  });

  const secretOf = (...texts: readonly string[]) => {
    const host = new SimHost();
    const objects = new ObjectList();
    for (const text of texts) objects.add(text);
    objects.provideTo(host);
    return Buffer.from(secrets(host).get('s') ?? '').toString('latin1');
  };
  const master = `secret,id=m,data=${KEY}`;
  const encrypted = (rest: string) => `secret,id=s,keyid=m,iv=${IV},${rest}`;

  test.each([
    ['plain', ['secret,id=s,data=a,,b']],
    ['Base64', ['secret,id=s,data=aHVudGVyMg==,format=base64']],
    ['Base64 whose last group is not whole', ['secret,id=s,data=aHVudGVyMg,format=base64']],
    ['encrypted', [master, encrypted('data=5LMIqvqZvDF8UUkkR4Zung==,format=base64')]],
    ['nothing, encrypted', [master, encrypted('data=')]],
  ] as const)('the content of a secret: %s', (name, texts) => {
    const expected = { plain: 'a,b', Base64: 'hunter2', encrypted: 'hunter2' } as Record<string, string>;
    expect(secretOf(...texts)).toBe(expected[name] ?? (name.startsWith('Base64') ? 'hunter' : ''));
  });

  test.each([
    [`secret,id=s,keyid=m,data=AAAA,format=base64`, 'IV is required to decrypt secret'],
    [`secret,id=s,keyid=m,iv=AAAA,data=,format=base64`, 'IV should be 16 bytes in length not 3'],
    [`secret,id=s,keyid=m,iv=!,data=,format=base64`, 'Base64 data contains invalid characters'],
    [encrypted('data=AAAA,format=base64'), 'Length 3 must be a multiple of block size 16'],
    [
      encrypted('data=AAAAAAAAAAAAAAAAAAAAAA==,format=base64'),
      /^Incorrect number of padding bytes \(\d+\) found on decrypted data$/,
    ],
  ])('an encrypted secret is refused: %s: %s', (text, message) => {
    expect(() => secretOf(master, text)).toThrow(message);
    expect(() => secretOf('secret,id=m,data=short', text)).toThrow('Key should be 32 bytes in length');
  });

  test('throttle groups are there for what is opened on the host', () => {
    const host = new SimHost();
    const objects = new ObjectList();
    objects.add('throttle-group,id=text,x-iops-read=5');
    objects.add('{"qom-type": "throttle-group", "id": "json", "limits": {"bps-total": 7}}');
    objects.provideTo(host);
    expect(throttleGroups(host).get('text')?.limits['iops-read'].average).toBe(5);
    expect(throttleGroups(host).get('json')?.limits['bps-total'].average).toBe(7);
  });

  test('help lists types, or the properties of one', () => {
    const help = (text: string) => {
      try {
        new ObjectList().add(text);
      } catch (error) {
        if (error instanceof HelpRequest) return error.about;
        throw error;
      }
    };
    const types = [
      'authz-list',
      'authz-list-file',
      'authz-listfile',
      'authz-simple',
      'secret',
      'throttle-group',
      'tls-creds-psk',
      'tls-creds-x509',
    ];
    expect(help('help')).toBe(`List of user creatable objects:\n${types.map((each) => `  ${each}\n`).join('')}`);
    expect(help('authz-simple,help')).toBe('authz-simple options:\n  identity=<string>\n');
    expect(help('secret,help')).toMatch(/^secret options:\n {2}data=<string>\n {2}file=<string>\n/);
    const group = help('throttle-group,id=g0,help');
    expect(group).toMatch(
      /^throttle-group options:\n {2}limits=<ThrottleLimits>\n {2}x-bps-read-max-length=<int>\n {2}x-bps-read-max=<int>\n {2}x-bps-read=<int>\n/,
    );
    expect(group).toMatch(/ {2}x-iops-read=<int>\n {2}x-iops-size=<int>\n {2}x-iops-total-max-length=<int>\n/);
  });
});
