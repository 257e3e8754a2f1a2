var I,Bu,yn,_0,vn,ye,qu,ve,Hu,En,Sn,ii,K0=Symbol.for("pv"),Ee={},Re=[],si=/^m(i|n|o|s|text|space)$/,Rn=Array.isArray,Nn=Re.slice,v0=Object.assign;function g0(e){e&&e.parentNode&&e.remove()}function Ku(e,n,u){var t,o,r,i={},s=arguments.length;for(r in n)r=="key"?t=n[r]:r=="ref"&&typeof e!="function"?o=n[r]:i[r]=n[r];return s>2&&(i.children=s>3?Nn.call(arguments,2):u),H0(e,i,t,o,null)}function H0(e,n,u,t,o){var r={type:e,props:n,key:u,ref:t,__k:null,__:null,__b:0,__e:null,__c:null,constructor:K0,__v:o||++Bu,__i:-1,__u:0};return!o&&I.vnode&&I.vnode(r),r}function a0(e){return e.children}function w0(e,n){this.props=e,this.context=n,this.__g=0}function b0(e,n){if(n==null)return e.__&&b0(e.__,e.__i+1);for(var u;n<e.__k.length;n++)if((u=e.__k[n])&&u.__e)return u.__e;return typeof e.type!="function"||e.props.__P?null:b0(e)}function ai(e){var n,u=e.__v,t=u.__e,o=[],r=[],i=e.__P;i&&((n=v0({constructor:K0},u)).__v=u.__v+1,I.vnode&&I.vnode(n),Tn(i,n,u,e.__n,i.namespaceURI,32&u.__u?[t]:null,o,t||b0(u),32&u.__u,r),n.__v=u.__v,n.__.__k[n.__i]=n,Qu(o,n,r),u.__=u.__e=null,n.__e!=t&&Yu(n))}function Yu(e){if((e=e.__)&&e.__c&&!e.props.__P)return e.__e=null,e.__k.some(function(n){return n&&(e.__e=n.__e)}),Yu(e)}function Vu(e){(8&e.__g||(e.__g|=8,_0.push(e),ye++))&&vn==I.debounceRendering||((vn=I.debounceRendering)||queueMicrotask)(ju)}function ju(){try{for(var e,n=1;_0.length;)_0.length>n&&_0.sort(qu),e=_0.shift(),n=_0.length,8&e.__g&&ai(e)}finally{(ye=_0.length)&&(vn||queueMicrotask)(ju)}}function Ju(e,n,u,t,o,r,i,s,a,c,l){var d,_,p,m,h,b,g=t.__k||Re,S=n.length;for(a=ci(u,n,g,a,S),d=0;d<S;d++)(p=u.__k[d])!=null&&(_=~p.__i&&g[p.__i]||Ee,p.__i=d,b=Tn(e,p,_,o,r,i,s,a,c,l),m=p.__e,(_.ref!=p.ref||8&_.__u)&&(_.ref&&xn(_.ref,null,p,_),p.ref&&l.push(p.ref,p.__c||m,p)),h=h||m,4&p.__u?(a=Xu(p,a,e,!_.__v),_.__e&&(_.__e=null)):typeof p.type=="function"&&b!==void 0?a=b:m&&(a=m.nextSibling),p.__u&=-21);return u.__e=h,a}function ci(e,n,u,t,o){var r,i,s,a,c,l,d,_,p,m=u.length,h=m,b=0,g=0,S=e.__k=Array(o);for(r=0;r<o;r++)(i=n[r])!=null&&typeof i!="boolean"&&typeof i!="function"?(typeof i!="object"||i.constructor===String?i=S[r]=H0(null,i):Rn(i)?i=S[r]=H0(a0,{children:i}):i.constructor===K0&&i.__b?i=S[r]=H0(i.type,i.props,i.key,i.ref,i.__v):S[r]=i,a=r+b,i.__=e,i.__b=e.__b+1,s=null,~(c=i.__i=pi(i,u,a,h))&&(h--,(s=u[c])&&(s.__u|=2)),s&&s.__v?(i.__u|=16,c==a-1?b--:c==a+1?b++:c!=a&&(c>a?b--:b++,g=1)):(~c||(o>m?b--:o<m&&b++),typeof i.type!="function"&&(i.__u|=4))):S[r]=null;if(g){for(l=[],d=[],r=0;r<o;r++)if((i=S[r])&&16&i.__u){for(b=0,_=l.length;b<_;)l[p=b+_>>1]<i.__i?b=p+1:_=p;l[b]=i.__i,d[r]=b+1}for(b=l.length;r--;)d[r]&&(d[r]==b?b--:S[r].__u|=4)}if(h)for(r=0;r<m;r++)!(s=u[r])||2&s.__u||(s.__e==t&&(t=b0(s)),In(s,s));return t}function Xu(e,n,u,t){var o,r,i,s;if(typeof e.type=="function"){if(e.props.__P)return n;if(o=e.__k)for(r=0;r<o.length;r++)o[r]&&(o[r].__=e,n=Xu(o[r],n,u,!1));return n}for(n&&!n.parentNode&&(n=b0(e))&&!n.parentNode&&(n=null),i=e.__e,s=n;s&&s.nodeType==8;)s=s.nextSibling;for(i!=s&&(!t&&u.moveBefore&&i.parentNode?u.moveBefore(i,n):u.insertBefore(i,n||null)),n=i;(n=n&&n.nextSibling)&&n.nodeType==8&&!n.data.startsWith("$s"););return n}function pi(e,n,u,t){var o,r=e.key,i=e.type,s=n[u],a=s&&!(2&s.__u);if(s===null&&r==null||a&&r==s.key&&i==s.type)return u;if(t>(a?1:0)){for(o=u-1;o>=0;o--)if((s=n[o])&&!(2&s.__u)&&r==s.key&&i==s.type)return o;for(o=u+1;o<n.length;o++)if((s=n[o])&&!(2&s.__u)&&r==s.key&&i==s.type)return o}return-1}function $u(e,n,u){u==null&&(u=""),n[0]=="-"?e.setProperty(n,u):e[n]=u}function ge(e,n,u,t,o){var r,i;if(n=="style")if(typeof u=="string")e.style.cssText=u;else{if(typeof t=="string"&&(e.style.cssText=t=""),t)for(n in t)u&&n in u||$u(e.style,n);if(u)for(n in u)t&&u[n]==t[n]||$u(e.style,n,u[n])}else if(n[0]=="o"&&n[1]=="n")typeof u!="function"&&(u=null),typeof t!="function"&&(t=null),(e.__e||(e.__e={}))[n]=u,u&&t||(i=Sn[n]||(Sn[n]=li(n)),(e.__a||(e.__a={}))[n]=En,r=n!=(n=n.replace(Hu,"$1")),(n=n.slice(2))[0]<"a"&&(n=n.toLowerCase()),u?e.addEventListener(n,i,r):e.removeEventListener(n,i,r));else{if(o=="http://www.w3.org/2000/svg")n=n.replace(/xlink(H|:h)/,"h").replace(/sName$/,"s");else if(n!="width"&&n!="height"&&n!="href"&&n!="list"&&n!="form"&&n!="tabIndex"&&n!="download"&&n!="rowSpan"&&n!="colSpan"&&n!="role"&&n!="popover"&&n in e)try{return void(e[n]=u??"")}catch{}if(typeof u=="function")return;u==null||u===!1&&n[4]!="-"?e.removeAttribute(n):e.setAttribute(n,n=="popover"&&u==1?"":u)}}function li(e){return function(n){var u=this.__e;if(u){if(u=u[e],n[ve]==null)n[ve]=En++;else if(n[ve]<this.__a[e])return;return u(I.event?I.event(n):n)}}}function Tn(e,n,u,t,o,r,i,s,a,c){var l,d,_,p,m,h,b,g,S,O,w,i0,q0,d0,J,I0,t0,h0,s0=n.type;if(n.constructor!==K0)return null;128&u.__u&&(a=32&u.__u,l=u.__c.__z)&&(n.__u|=a,d=r=[],l.nodeType==8?s=Se(l,r):r.push(l),s=r[0]||s),(l=I.__b)&&l(n);e:if(typeof s0=="function"){_=i.length;try{if(g=n.props,S=(l=s0.prototype)&&l.render,O=(l=s0.contextType)&&t[l.__c],w=l?O?O.props.value:l.__:t,(p=u.__c)?(n.__c=p,2&p.__g&&(p.__g|=1)):(S?n.__c=p=new s0(g,w):(n.__c=p=new w0(g,w),p.constructor=s0,p.render=mi),O&&O.sub(p),p.state||(p.state={}),p.__n=t,p.__g|=8,p.__h=[],p.__k=[]),S&&(p.__s||(p.__s=p.state),s0.getDerivedStateFromProps&&(p.__s==p.state&&(p.__s=v0({},p.__s)),v0(p.__s,s0.getDerivedStateFromProps(g,p.__s)))),m=p.props,h=p.state,p.__v=n,u.__c){if(g!==m&&S&&!s0.getDerivedStateFromProps&&p.componentWillReceiveProps&&p.componentWillReceiveProps(g,w),n.__v==u.__v&&!(8&p.__g)||!(4&p.__g)&&p.shouldComponentUpdate&&p.shouldComponentUpdate(g,p.__s,w)===!1){n.__v!=u.__v&&(p.props=g,p.state=p.__s,p.__g&=-9),n.__e=u.__e,n.__k=u.__k,n.__k.some(function(X){X&&(X.__=n)}),Re.push.apply(p.__h,p.__k),p.__k=[],p.__h.length&&i.push(p),s=b0(u);break e}p.componentWillUpdate&&p.componentWillUpdate(g,p.__s,w),S&&p.componentDidUpdate&&p.__h.push(function(){p.componentDidUpdate(m,h,b)})}else S&&!s0.getDerivedStateFromProps&&p.componentWillMount&&p.componentWillMount(),S&&p.componentDidMount&&p.__h.push(p.componentDidMount);p.context=w,p.props=g,p.__P=e,p.__g&=-5,i0=I.__r,q0=S?25:0;do p.__g&=-9,i0&&i0(n),l=p.render(p.props,p.state=p.__s,p.context);while(8&p.__g&&++q0<25);S&&(Re.push.apply(p.__h,p.__k),p.__k=[]),p.state=p.__s,p.getChildContext&&(t=v0({},t,p.getChildContext())),S&&u.__c&&p.getSnapshotBeforeUpdate&&(b=p.getSnapshotBeforeUpdate(m,h)),d0=l&&l.type===a0&&l.key==null?l.props.children:l,g.__P&&(l=s,o=(e=g.__P).namespaceURI,a=r=null,u.props&&u.props.__P!=e&&(u.__k.some(function(X){X&&In(X,X)}),u.__k=null),s=u.__k?b0(u,0):null),s=Ju(e,Rn(d0)?d0:[d0],n,u,t,o,r,i,s,a,c),g.__P&&(n.__e=null,s=l),n.__u&=-161,d&&d.some(g0),p.__h.length&&i.push(p),1&p.__g&&(p.__g&=-4)}catch(X){if(i.length=_,n.__v=null,a||r)if(X&&X.then){if(n.__u|=128|a,r){for(~(t0=r.indexOf(s||void 0))||(t0=r.length);(h0=r[t0-1])&&h0.nodeType==8;)t0--;for(;t0<r.length;t0++)if(h0=r[t0])if(r[t0]=null,J){if(h0==I0)break}else{if(h0.nodeType!=8)break;h0.data.startsWith("$s")&&(I0=Se(J=h0))}}if(!J){for(;s&&s.nodeType==8&&s.nextSibling;)s=s.nextSibling;J=s}(l=Se(J=n.__c.__z||(n.__c.__z=J)))?(n.__e=J,s=l):n.__e=s,s=s&&s.nextSibling}else r&&r.some(g0);else n.__e=u.__e;n.__k||(n.__k=u.__k||[]),X&&X.then||zu(n),I.__e(X,n,u)}}else s=n.__e=fi(u.__e,n,u,t,o,r,i,a,c,e);return(l=I.diffed)&&l(n),s}function Se(e,n){if(e&&e.nodeType==8&&e.data.startsWith("$s"))for(var u=1;e=e.nextSibling;){if(e.nodeType==8){if(e.data.startsWith("$s"))u++;else if(e.data.startsWith("/$s")&&!--u)return e}n&&n.push(e)}}function zu(e){e&&(e.__c&&(e.__c.__g|=4),e.__k&&e.__k.some(zu))}function Qu(e,n,u){for(var t=0;t<u.length;)xn(u[t++],u[t++],u[t++]);I.__c&&I.__c(n,e),e.some(function(o){try{e=o.__h,o.__h=[],e.some(function(r){r.call(o)})}catch(r){I.__e(r,o.__v)}})}function fi(e,n,u,t,o,r,i,s,a,c){var l,d,_,p,m,h,b,g,S=u.props||Ee,O=n.props,w=n.type;if(w=="svg"?o="http://www.w3.org/2000/svg":w=="math"?o="http://www.w3.org/1998/Math/MathML":o||(o="http://www.w3.org/1999/xhtml"),r){for(l=0;l<r.length;l++)if((m=r[l])&&(w?m.localName==w:m.nodeType==3)){e=m,r[l]=null;break}}if(!e){if(g=c.ownerDocument||document,!w)return g.createTextNode(O);e=g.createElementNS(o,w,O.is?O:c),s&&(I.__m&&I.__m(n,r),s=!1),r=null}if(w){if(c=w=="template"&&e.content||e,r=w=="textarea"&&O.defaultValue!=null?null:r&&Nn.call(c.childNodes),!s&&r)for(S={},l=0;l<e.attributes.length;l++)S[(m=e.attributes[l]).name]=m.value;for(l in S)m=S[l],l=="dangerouslySetInnerHTML"?_=m:l=="children"||l in O||l=="value"&&"defaultValue"in O||l=="checked"&&"defaultChecked"in O||ge(e,l,null,m,o);for(l in O)m=O[l],l=="children"?p=m:l=="dangerouslySetInnerHTML"?d=m:l=="value"?h=m:l=="checked"?b=m:s&&typeof m!="function"||S[l]===m||ge(e,l,m,S[l],o);d?(s||_&&(d.__html==_.__html||d.__html==e.innerHTML)||(e.innerHTML=d.__html),n.__k=[]):(_&&(e.textContent=""),(w=="foreignObject"||o=="http://www.w3.org/1998/Math/MathML"&&si.test(w))&&(o="http://www.w3.org/1999/xhtml"),Ju(c,Rn(p)?p:[p],n,u,t,o,r,i,r?r[0]:u.__k&&b0(u,0),s,a),r&&r.some(g0)),s&&w!="textarea"||(l="value",w=="progress"&&h==null?e.removeAttribute(l):h==null||h===e[l]&&(w!="progress"||h)||ge(e,l,h,S[l],o),l="checked",b!=null&&b!=e[l]&&ge(e,l,b,S[l],o))}else S===O||s&&e.data==O||(e.data=O);return e}function xn(e,n,u,t){try{typeof e=="function"?n?n.__x=e(n)||1:t&&(t=t.__c||t.__e)&&(n=t.__x)&&(t.__x=null,typeof n=="function"?n():e(null)):e.current=n}catch(o){I.__e(o,u)}}function In(e,n,u){var t,o,r,i;if(I.unmount&&I.unmount(e),!(t=e.ref)||t.current&&t.current!=e.__e||xn(t,null,n,e),t=e.__c){if(t.componentWillUnmount)try{t.componentWillUnmount()}catch(s){I.__e(s,n)}t.__P=t.__n=null}if(t=e.__k)for(i=0;i<t.length;i++)t[i]&&In(t[i],n,typeof e.type!="function"||u&&!e.props.__P);!u&&(t=e.__c)&&(t=t.__z)&&(o=Se(t,r=[]))&&(t==e.__e&&r.some(g0),g0(o),g0(t)),u||g0(e.__e),e.__e=e.__c=e.__=null}function mi(e,n,u){return this.constructor(e,u)}function B1(e,n){var u,t,o,r;I.__&&I.__(e,n),n.nodeType==9&&(n=n.documentElement),t=(u=e&&32&e.__u)?null:n.__k,n.__k=H0(a0,{children:[e]}),o=[],r=[],Tn(n,n.__k,t||Ee,Ee,n.namespaceURI,t?null:n.firstChild?Nn.call(n.childNodes):null,o,t?t.__e:n.firstChild,u,r),Qu(o,n.__k,r),n.__k.props.children=null}I={__e:function(e,n,u,t){for(var o,r,i;n=n.__;)if((o=n.__c)&&!(1&o.__g)){o.__g|=4;try{if((i=(r=o.constructor)&&r.getDerivedStateFromError)&&o.setState(r.getDerivedStateFromError(e)),o.componentDidCatch&&(o.componentDidCatch(e,t||{}),i=1),i&&8&o.__g)return void(o.__g|=2)}catch(s){e=s}}throw ye=0,e}},Bu=0,yn=function(e){return e!=null&&e.constructor===K0},w0.prototype.setState=function(e,n){var u=this.__s;u&&u!=this.state||(u=this.__s=v0({},this.state)),typeof e=="function"&&(e=e(v0({},u),this.props)),e&&(v0(u,e),this.__v&&(n&&this.__k.push(n),Vu(this)))},w0.prototype.forceUpdate=function(e){this.__v&&(this.__g|=4,e&&this.__h.push(e),Vu(this))},w0.prototype.render=a0,_0=[],ye=0,qu=function(e,n){return e.__v.__b-n.__v.__b},ve=Symbol(),Hu=/(PointerCapture)$|Capture$/i,En=0,Sn={},ii=0;var O0,H,wn,Zu,di=Object.is,On=0,at=[],Dn=[],P=I,et=P.__b,nt=P.__r,ut=P.diffed,tt=P.__c,ot=P.unmount,rt=P.__;function Ne(e,n){P.__h&&P.__h(H,e,On||n),On=0;var u=H.__H||(H.__H={__:[],__h:[]});return e>=u.__.length&&u.__.push({}),u.__[e]}function _i(e,n){var u=Ne(O0++,3);!P.__s&&Ln(u.__H,n)&&(u.__P=!0,u.__=e,u.u=n,H.__H.__h.push(u))}function K1(e,n){var u=Ne(O0++,4);!P.__s&&Ln(u.__H,n)&&(u.__P=!1,u.__=e,u.u=n,H.__h.push(u))}function bi(e){return On=5,Te(function(){return{current:e}},[])}function Te(e,n){var u=Ne(O0++,7);return Ln(u.__H,n)&&(u.__=e(),u.__H=n),u.__}function Y1(){var e=Ne(O0++,11);if(!e.__){for(var n=H.__v;!n.__m&&n.__;)n=n.__;var u=n.__m||(n.__m=[0,0]);e.__="P"+u[0]+"-"+u[1]++}return e.__}function hi(){var e;do{for(;e=Dn.shift();)try{Y0(e)}catch(u){P.__e(u,{__:(e=e.__P)&&e.__v})}for(;e=at.shift();){var n=e.__H;if(e.__P&&n)try{n.__h.some(Y0),n.__h.some(An),n.__h=[]}catch(u){n.__h=[],P.__e(u,e.__v)}}}while(Dn.length)}P.__b=function(e){H=null,et&&et(e)},P.__=function(e,n){e&&n.__k&&n.__k.__m&&(e.__m=n.__k.__m),rt&&rt(e,n)},P.__r=function(e){nt&&nt(e),O0=0;var n=(H=e.__c).__H;n&&(wn==H?H.__h=[]:(n.__h.some(Y0),n.__h.some(An),O0=0),n.__h=[],n.__.some(function(u){u.__N&&(u.__=u.__N),u.u=u.__N=void 0})),wn=H},P.diffed=function(e){ut&&ut(e);var n=e.__c;n&&n.__H&&(n.__H.__h.length&&st(at.push(n)),n.__H.__.some(function(u){u.u&&(u.__H=u.u)})),wn=H=null},P.__c=function(e,n){n.some(function(u){try{u.__h.some(Y0),u.__h=u.__h.filter(function(t){return!t.__||An(t)})}catch(t){u.__h=[function(){throw t}]}}),tt&&tt(e,n)},P.unmount=function(e){ot&&ot(e);var n,u,t=e.__c;t&&t.__H&&(t.__H.__.some(function(o){try{if(o.__P&&o.__c){if(u===void 0){for(u=e.__;u&&(!u.__c||!u.__c.__P);)u=u.__;u=u&&u.__c}o.__P=u,st(Dn.push(o))}else Y0(o)}catch(r){n=r}}),t.__H=void 0,n&&P.__e(n,t.__v))};var it=typeof requestAnimationFrame=="function";function gi(e){var n,u=function(){clearTimeout(t),it&&cancelAnimationFrame(n),setTimeout(e)},t=setTimeout(u,35);it&&(n=requestAnimationFrame(u))}function st(e){e!=1&&Zu==P.requestAnimationFrame||((Zu=P.requestAnimationFrame)||gi)(hi)}function Y0(e){var n=H,u=e.__c;typeof u=="function"&&(e.__c=void 0,u()),H=n}function An(e){var n=H;e.__c=e.__(),H=n}function Ln(e,n){return!e||e.length!=n.length||n.some(function(u,t){return!di(u,e[t])})}var v;(function(e){e[e.Canceled=1]="Canceled",e[e.Unknown=2]="Unknown",e[e.InvalidArgument=3]="InvalidArgument",e[e.DeadlineExceeded=4]="DeadlineExceeded",e[e.NotFound=5]="NotFound",e[e.AlreadyExists=6]="AlreadyExists",e[e.PermissionDenied=7]="PermissionDenied",e[e.ResourceExhausted=8]="ResourceExhausted",e[e.FailedPrecondition=9]="FailedPrecondition",e[e.Aborted=10]="Aborted",e[e.OutOfRange=11]="OutOfRange",e[e.Unimplemented=12]="Unimplemented",e[e.Internal=13]="Internal",e[e.Unavailable=14]="Unavailable",e[e.DataLoss=15]="DataLoss",e[e.Unauthenticated=16]="Unauthenticated"})(v||(v={}));var ct=Uint8Array.prototype.setFromBase64;function A0(e){let n=e.length,u=n-(n+3>>2);(n&3)==0&&e[n-1]=="="&&(u-=e[n-2]=="="?2:1);let t=new Uint8Array(u),o=-1;if(ct)try{let r=ct.call(t,e);r.read==n&&(o=r.written)}catch{}return o<0&&(o=vi(t,e)),o==u?t:t.subarray(0,o)}function vi(e,n){let u=yi(),t=0,o=0,r,i=0;for(let s=0;s<n.length;s++){if(r=u[n.charCodeAt(s)],r===void 0)switch(n[s]){case"=":o=0;case`
`:case"\r":case"	":case" ":continue;default:throw Error("invalid base64 string")}switch(o){case 0:i=r,o=1;break;case 1:e[t++]=i<<2|(r&48)>>4,i=r,o=2;break;case 2:e[t++]=(i&15)<<4|(r&60)>>2,i=r,o=3;break;case 3:e[t++]=(i&3)<<6|r,o=0;break}}if(o==1)throw Error("invalid base64 string");return t}var pt=Uint8Array.prototype.toBase64,Si={std:{alphabet:"base64",omitPadding:!1},std_raw:{alphabet:"base64",omitPadding:!0},url:{alphabet:"base64url",omitPadding:!0}};function j0(e,n="std"){if(pt)return pt.call(e,Si[n]);let u=ft(n),t=n=="std",o="",r=0,i,s=0;for(let a=0;a<e.length;a++)switch(i=e[a],r){case 0:o+=u[i>>2],s=(i&3)<<4,r=1;break;case 1:o+=u[s|i>>4],s=(i&15)<<2,r=2;break;case 2:o+=u[s|i>>6],o+=u[i&63],r=0;break}return r&&(o+=u[s],t&&(o+="=",r==1&&(o+="="))),o}var xe,lt,D0;function ft(e){return xe||(xe="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".split(""),lt=xe.slice(0,-2).concat("-","_")),e=="url"?lt:xe}function yi(){if(!D0){D0=[];let e=ft("std");for(let n=0;n<e.length;n++)D0[e[n].charCodeAt(0)]=n;D0[45]=e.indexOf("+"),D0[95]=e.indexOf("/")}return D0}function c0(e){let n=!1,u=[];for(let t=0;t<e.length;t++){let o=e.charAt(t);switch(o){case"_":n=!0;break;case"0":case"1":case"2":case"3":case"4":case"5":case"6":case"7":case"8":case"9":u.push(o),n=!1;break;default:n&&(n=!1,o=o.toUpperCase()),u.push(o);break}}return u.join("")}function Ie(e){return e.replace(/[A-Z]/g,n=>"_"+n.toLowerCase())}var Ei=new Set(["constructor","toString","toJSON","valueOf"]);function L0(e){return Ei.has(e)?e+"$":e}function dt(){let e=this.buf,n=this.pos,u=0,t=0;for(let r=0;r<28;r+=7){let i=e[n++];if(u|=(i&127)<<r,(i&128)==0){this.pos=n,this.assertBounds(),this.varint64Lo=u,this.varint64Hi=t;return}}let o=e[n++];if(u|=(o&15)<<28,t=(o&112)>>4,(o&128)==0){this.pos=n,this.assertBounds(),this.varint64Lo=u,this.varint64Hi=t;return}for(let r=3;r<=31;r+=7){let i=e[n++];if(t|=(i&127)<<r,(i&128)==0){this.pos=n,this.assertBounds(),this.varint64Lo=u,this.varint64Hi=t;return}}throw new Error("invalid varint")}var we=4294967296;function kn(e){let n=e[0]==="-";n&&(e=e.slice(1));let u=1e6,t=0,o=0;function r(i,s){let a=Number(e.slice(i,s));o*=u,t=t*u+a,t>=we&&(o=o+(t/we|0),t=t%we)}return r(-24,-18),r(-18,-12),r(-12,-6),r(-6),n?bt(t,o):Cn(t,o)}function _t(e,n){let u=Cn(e,n),t=u.hi&2147483648;t&&(u=bt(u.lo,u.hi));let o=Un(u.lo,u.hi);return t?"-"+o:o}function Un(e,n){if({lo:e,hi:n}=Ri(e,n),n<=2097151)return String(we*n+e);let u=e&16777215,t=(e>>>24|n<<8)&16777215,o=n>>16&65535,r=u+t*6777216+o*6710656,i=t+o*8147497,s=o*2,a=1e7;return r>=a&&(i+=Math.floor(r/a),r%=a),i>=a&&(s+=Math.floor(i/a),i%=a),s.toString()+mt(i)+mt(r)}function Ri(e,n){return{lo:e>>>0,hi:n>>>0}}function Cn(e,n){return{lo:e|0,hi:n|0}}function bt(e,n){return n=~n,e?e=~e+1:n+=1,Cn(e,n)}var mt=e=>{let n=String(e);return"0000000".slice(n.length)+n};function ht(e,n){if(e>>>0<128){n.push(e);return}if(e>=0){for(;e>127;)n.push(e&127|128),e=e>>>7;n.push(e)}else{for(let u=0;u<9;u++)n.push(e&127|128),e=e>>7;n.push(1)}}function gt(){let e=this.buf[this.pos++];if((e&128)===0)return this.assertBounds(),e;let n=e&127;if(e=this.buf[this.pos++],n|=(e&127)<<7,(e&128)===0)return this.assertBounds(),n;if(e=this.buf[this.pos++],n|=(e&127)<<14,(e&128)===0)return this.assertBounds(),n;if(e=this.buf[this.pos++],n|=(e&127)<<21,(e&128)===0)return this.assertBounds(),n;e=this.buf[this.pos++],n|=(e&15)<<28;for(let u=5;(e&128)!==0&&u<10;u++)e=this.buf[this.pos++];if((e&128)!==0)throw new Error("invalid varint");return this.assertBounds(),n>>>0}var R=Ni();function Ni(){let e=new DataView(new ArrayBuffer(8));if(typeof BigInt=="function"&&typeof e.getBigInt64=="function"&&typeof e.getBigUint64=="function"&&typeof e.setBigInt64=="function"&&typeof e.setBigUint64=="function"&&(!!globalThis.Deno||!!globalThis.Bun||typeof process!="object"||typeof process.env!="object"||process.env.BUF_BIGINT_DISABLE!=="1")){let u=BigInt("-9223372036854775808"),t=BigInt("9223372036854775807"),o=BigInt("0"),r=BigInt("18446744073709551615");return{zero:BigInt(0),supported:!0,parse(i){let s=typeof i=="bigint"?i:BigInt(i);if(s>t||s<u)throw new Error(`invalid int64: ${i}`);return s},uParse(i){let s=typeof i=="bigint"?i:BigInt(i);if(s>r||s<o)throw new Error(`invalid uint64: ${i}`);return s},enc(i){return e.setBigInt64(0,this.parse(i),!0),{lo:e.getInt32(0,!0),hi:e.getInt32(4,!0)}},uEnc(i){return e.setBigInt64(0,this.uParse(i),!0),{lo:e.getInt32(0,!0),hi:e.getInt32(4,!0)}},dec(i,s){return e.setInt32(0,i,!0),e.setInt32(4,s,!0),e.getBigInt64(0,!0)},uDec(i,s){return e.setInt32(0,i,!0),e.setInt32(4,s,!0),e.getBigUint64(0,!0)}}}return{zero:"0",supported:!1,parse(u){return typeof u!="string"&&(u=u.toString()),vt(u),u},uParse(u){return typeof u!="string"&&(u=u.toString()),St(u),u},enc(u){return typeof u!="string"&&(u=u.toString()),vt(u),kn(u)},uEnc(u){return typeof u!="string"&&(u=u.toString()),St(u),kn(u)},dec(u,t){return _t(u,t)},uDec(u,t){return Un(u,t)}}}function vt(e){if(!/^-?[0-9]+$/.test(e))throw new Error("invalid int64: "+e)}function St(e){if(!/^[0-9]+$/.test(e))throw new Error("invalid uint64: "+e)}var f;(function(e){e[e.DOUBLE=1]="DOUBLE",e[e.FLOAT=2]="FLOAT",e[e.INT64=3]="INT64",e[e.UINT64=4]="UINT64",e[e.INT32=5]="INT32",e[e.FIXED64=6]="FIXED64",e[e.FIXED32=7]="FIXED32",e[e.BOOL=8]="BOOL",e[e.STRING=9]="STRING",e[e.BYTES=12]="BYTES",e[e.UINT32=13]="UINT32",e[e.SFIXED32=15]="SFIXED32",e[e.SFIXED64=16]="SFIXED64",e[e.SINT32=17]="SINT32",e[e.SINT64=18]="SINT64"})(f||(f={}));function K(e,n){switch(e){case f.STRING:return"";case f.BOOL:return!1;case f.DOUBLE:case f.FLOAT:return 0;case f.INT64:case f.UINT64:case f.SFIXED64:case f.FIXED64:case f.SINT64:return n?"0":R.zero;case f.BYTES:return new Uint8Array(0);default:return 0}}function yt(e,n){switch(e){case f.BOOL:return n===!1;case f.STRING:return n==="";case f.BYTES:return n instanceof Uint8Array&&!n.byteLength;case f.DOUBLE:case f.FLOAT:return Object.is(n,0);default:return n==0}}var Et=2,M=Symbol.for("reflect unsafe local");function Rt(e,n){let u=e[n.localName].case;return u===void 0?u:n.fields.find(t=>t.localName===u)}function Nt(e,n){let u=n.localName;if(n.oneof)return e[n.oneof.localName].case===u;if(n.presence!=Et)return e[u]!==void 0&&Object.prototype.hasOwnProperty.call(e,u);switch(n.fieldKind){case"list":return e[u].length>0;case"map":return Object.keys(e[u]).length>0;case"scalar":return!yt(n.scalar,e[u]);case"enum":return e[u]!==n.enum.values[0].number}throw new Error("message field with implicit presence")}function S0(e,n){return Object.prototype.hasOwnProperty.call(e,n)&&e[n]!==void 0}function Tt(e,n){if(n.oneof){let u=e[n.oneof.localName];return u.case===n.localName?u.value:void 0}return e[n.localName]}function xt(e,n,u){n.oneof?e[n.oneof.localName]={case:n.localName,value:u}:e[n.localName]=u}function $(e,n,u){n==="__proto__"?Object.defineProperty(e,"__proto__",{value:u,writable:!0,enumerable:!0,configurable:!0}):e[n]=u}function It(e,n){return Object.prototype.hasOwnProperty.call(e,n)?e[n]:void 0}function wt(e,n){let u=n.localName;if(n.oneof){let t=n.oneof.localName;e[t].case===u&&(e[t]={case:void 0})}else if(n.presence!=Et)delete e[u];else switch(n.fieldKind){case"map":e[u]={};break;case"list":e[u]=[];break;case"enum":e[u]=n.enum.values[0].number;break;case"scalar":e[u]=K(n.scalar,n.longAsString);break}}function J0(e){for(let n of e.field)S0(n,"jsonName")||(n.jsonName=c0(n.name));e.nestedType.forEach(J0)}function Ot(e,n){let u=e.values.find(t=>t.name===n);if(!u)throw new Error(`cannot parse ${e} default value: ${n}`);return u.number}function Dt(e,n){switch(e){case f.STRING:return n;case f.BYTES:{let u=Ti(n);if(u===!1)throw new Error(`cannot parse ${f[e]} default value: ${n}`);return u}case f.INT64:case f.SFIXED64:case f.SINT64:return R.parse(n);case f.UINT64:case f.FIXED64:return R.uParse(n);case f.DOUBLE:case f.FLOAT:switch(n){case"inf":return Number.POSITIVE_INFINITY;case"-inf":return Number.NEGATIVE_INFINITY;case"nan":return Number.NaN;default:return parseFloat(n)}case f.BOOL:return n==="true";case f.INT32:case f.UINT32:case f.SINT32:case f.FIXED32:case f.SFIXED32:return parseInt(n,10)}}function Ti(e){let n=[],u={tail:e,c:"",next(){return this.tail.length==0?!1:(this.c=this.tail[0],this.tail=this.tail.substring(1),!0)},take(t){if(this.tail.length>=t){let o=this.tail.substring(0,t);return this.tail=this.tail.substring(t),o}return!1}};for(;u.next();)switch(u.c){case"\\":if(u.next())switch(u.c){case"\\":n.push(u.c.charCodeAt(0));break;case"b":n.push(8);break;case"f":n.push(12);break;case"n":n.push(10);break;case"r":n.push(13);break;case"t":n.push(9);break;case"v":n.push(11);break;case"0":case"1":case"2":case"3":case"4":case"5":case"6":case"7":{let t=u.c,o=u.take(2);if(o===!1)return!1;let r=parseInt(t+o,8);if(Number.isNaN(r))return!1;n.push(r);break}case"x":{let t=u.c,o=u.take(2);if(o===!1)return!1;let r=parseInt(t+o,16);if(Number.isNaN(r))return!1;n.push(r);break}case"u":{let t=u.c,o=u.take(4);if(o===!1)return!1;let r=parseInt(t+o,16);if(Number.isNaN(r))return!1;let i=new Uint8Array(4);new DataView(i.buffer).setInt32(0,r,!0),n.push(i[0],i[1],i[2],i[3]);break}case"U":{let t=u.c,o=u.take(8);if(o===!1)return!1;let r=R.uEnc(t+o),i=new Uint8Array(8),s=new DataView(i.buffer);s.setInt32(0,r.lo,!0),s.setInt32(4,r.hi,!0),n.push(i[0],i[1],i[2],i[3],i[4],i[5],i[6],i[7]);break}}break;default:n.push(u.c.charCodeAt(0))}return new Uint8Array(n)}function*Oe(e){switch(e.kind){case"file":for(let n of e.messages)yield n,yield*Oe(n);yield*e.enums,yield*e.services,yield*e.extensions;break;case"message":for(let n of e.nestedMessages)yield n,yield*Oe(n);yield*e.nestedEnums,yield*e.nestedExtensions;break}}var Pn;function xi(e){var n;Pn=Object.assign(Object.assign({},e),{encodeUtf8Into:(n=e.encodeUtf8Into)!==null&&n!==void 0?n:Fn(e.encodeUtf8.bind(e))})}function X0(){if(!Pn){let e=globalThis;if(!e.TextEncoder||!e.TextDecoder)throw new Error("encoding API missing: install TextEncoder and TextDecoder on globalThis");let n=new e.TextEncoder,u=new e.TextDecoder("utf-8",{ignoreBOM:!0}),t,o={encodeUtf8(i){return n.encode(i)},decodeUtf8(i,s){return s?(t||(t=new e.TextDecoder("utf-8",{fatal:!0,ignoreBOM:!0})),t.decode(i)):u.decode(i)},checkUtf8(i){try{return encodeURIComponent(i),!0}catch{return!1}}};n.encodeInto&&(o.encodeUtf8Into=n.encodeInto.bind(n));let r=String.prototype.isWellFormed;r&&(o.checkUtf8=i=>r.call(i)),xi(o)}return Pn}function Fn(e){return(n,u)=>{let t=e(n);return u.set(t),{written:t.byteLength}}}var D;(function(e){e[e.Varint=0]="Varint",e[e.Bit64=1]="Bit64",e[e.LengthDelimited=2]="LengthDelimited",e[e.StartGroup=3]="StartGroup",e[e.EndGroup=4]="EndGroup",e[e.Bit32=5]="Bit32"})(D||(D={}));var Wn=4294967295,Vn=2147483647,$n=-2147483648,k0=class{constructor(n){this.stackPos=[],this.encodeUtf8Into=n?Fn(n):X0().encodeUtf8Into,this.buffer=Lt,this.viewCache=wi,this.pos=0}ensureCapacity(n){let u=this.pos+n;if(u>this.buffer.length){let t=this.buffer.length||Ii;for(;t<u;)t*=2;let o=new Uint8Array(t);this.pos>0&&o.set(this.buffer),this.buffer=o}}view(){let n=this.buffer,u=this.viewCache;if(u.byteLength===n.byteLength)return u;let t=new DataView(n.buffer);return this.viewCache=t,t}finish(){let n=this.buffer.slice(0,this.pos);return this.pos=0,this.stackPos=[],n}fork(){return this.stackPos.push(this.pos),this.ensureCapacity(z0),this.buffer[this.pos++]=0,this}join(){let n=this.stackPos.pop();if(n===void 0)throw new Error("invalid state, fork stack empty");let u=this.pos-n-z0,t=Mn(u);return t>z0&&(this.ensureCapacity(t-z0),this.buffer.copyWithin(n+t,n+z0,this.pos)),this.pos=n,this.uint32(u),this.pos+=u,this}tag(n,u){return this.uint32((n<<3|u)>>>0)}raw(n){return this.ensureCapacity(n.length),this.buffer.set(n,this.pos),this.pos+=n.length,this}uint32(n){if(At(n),this.ensureCapacity(5),n<128)return this.buffer[this.pos++]=n,this;for(;n>127;)this.buffer[this.pos++]=n&127|128,n>>>=7;return this.buffer[this.pos++]=n,this}int32(n){if(Gn(n),n>=0)return this.uint32(n);this.ensureCapacity(10);for(let u=0;u<9;u++)this.buffer[this.pos++]=n&127|128,n>>=7;return this.buffer[this.pos++]=1,this}bool(n){return this.ensureCapacity(1),this.buffer[this.pos++]=n?1:0,this}bytes(n){return this.uint32(n.byteLength),this.raw(n)}string(n){typeof n!="string"&&(n=String(n));let u=n.length;if(u<=kt){this.ensureCapacity(u+1);let a=this.buffer,c=this.pos;a[c++]=u;let l=0;for(;l<u;l++){let d=n.charCodeAt(l);if(d>127)break;a[c++]=d}if(l==u)return this.pos=c,this}this.ensureCapacity(u*3+5);let t=Mn(u),o=this.buffer,r=this.pos,{written:i}=this.encodeUtf8Into(n,o.subarray(r+t)),s=Mn(i);return s!=t&&o.copyWithin(r+s,r+t,r+t+i),this.uint32(i),this.pos+=i,this}float(n){return Oi(n),this.ensureCapacity(4),this.view().setFloat32(this.pos,n,!0),this.pos+=4,this}double(n){return this.ensureCapacity(8),this.view().setFloat64(this.pos,n,!0),this.pos+=8,this}fixed32(n){return At(n),this.ensureCapacity(4),this.view().setUint32(this.pos,n,!0),this.pos+=4,this}sfixed32(n){return Gn(n),this.ensureCapacity(4),this.view().setInt32(this.pos,n,!0),this.pos+=4,this}sint32(n){return Gn(n),this.uint32((n<<1^n>>31)>>>0)}sfixed64(n){let u=R.enc(n);this.ensureCapacity(8);let t=this.view();return t.setInt32(this.pos,u.lo,!0),t.setInt32(this.pos+4,u.hi,!0),this.pos+=8,this}fixed64(n){let u=R.uEnc(n);this.ensureCapacity(8);let t=this.view();return t.setInt32(this.pos,u.lo,!0),t.setInt32(this.pos+4,u.hi,!0),this.pos+=8,this}int64(n){let u=R.enc(n);return this.writeVarint64(u.lo,u.hi)}sint64(n){let u=R.enc(n),t=u.hi>>31,o=u.lo<<1^t,r=(u.hi<<1|u.lo>>>31)^t;return this.writeVarint64(o,r)}uint64(n){let u=R.uEnc(n);return this.writeVarint64(u.lo,u.hi)}writeVarint64(n,u){this.ensureCapacity(10);let t=this.buffer,o=this.pos;for(let s=0;s<28;s=s+7){let a=n>>>s,c=!(!(a>>>7)&&u==0);if(t[o++]=(c?a|128:a)&255,!c)return this.pos=o,this}let r=n>>>28&15|(u&7)<<4,i=u>>3!=0;if(t[o++]=(i?r|128:r)&255,!i)return this.pos=o,this;for(let s=3;s<31;s=s+7){let a=u>>>s,c=!!(a>>>7);if(t[o++]=(c?a|128:a)&255,!c)return this.pos=o,this}return t[o++]=u>>>31&1,this.pos=o,this}},Ii=128,z0=1,Lt=new Uint8Array(0),wi=new DataView(Lt.buffer),kt=32;function Mn(e){return e<128?1:e<16384?2:e<2097152?3:e<268435456?4:5}var o0=class{constructor(n,u=X0().decodeUtf8){this.decodeUtf8=u,this.varint64Lo=0,this.varint64Hi=0,this.varint64=dt,this.uint32=gt,this.buf=n,this.len=n.length,this.pos=0,this.view=new DataView(n.buffer,n.byteOffset,n.byteLength)}tag(){let n=this.pos,u=this.uint32(),t=this.pos-n;if(t>5||t==5&&this.buf[this.pos-1]>15)throw new Error("illegal tag: varint overflows uint32");let o=u>>>3,r=u&7;if(o<=0||r>5)throw new Error("illegal tag: field no "+o+" wire type "+r);return[o,r]}skip(n,u,t=100){let o=this.pos;switch(n){case D.Varint:for(;this.buf[this.pos++]&128;);break;case D.Bit64:this.pos+=4;case D.Bit32:this.pos+=4;break;case D.LengthDelimited:let r=this.uint32();this.pos+=r;break;case D.StartGroup:if(t<=0)throw new Error("maximum recursion depth reached");for(;;){let[i,s]=this.tag();if(s===D.EndGroup){if(u!==void 0&&i!==u)throw new Error("invalid end group tag");break}this.skip(s,i,t-1)}break;default:throw new Error("cant skip wire type "+n)}return this.assertBounds(),this.buf.subarray(o,this.pos)}assertBounds(){if(this.pos>this.len)throw new RangeError("premature EOF")}int32(){return this.uint32()|0}sint32(){let n=this.uint32();return n>>>1^-(n&1)}int64(){return this.varint64(),R.dec(this.varint64Lo,this.varint64Hi)}uint64(){return this.varint64(),R.uDec(this.varint64Lo,this.varint64Hi)}sint64(){this.varint64();let n=this.varint64Lo,u=this.varint64Hi,t=-(n&1);return n=(n>>>1|(u&1)<<31)^t,u=u>>>1^t,R.dec(n,u)}bool(){let n=this.buf[this.pos];return n<128?(this.pos++,n!==0):(this.varint64(),this.varint64Lo!==0||this.varint64Hi!==0)}fixed32(){return this.view.getUint32((this.pos+=4)-4,!0)}sfixed32(){return this.view.getInt32((this.pos+=4)-4,!0)}fixed64(){return R.uDec(this.sfixed32(),this.sfixed32())}sfixed64(){return R.dec(this.sfixed32(),this.sfixed32())}float(){return this.view.getFloat32((this.pos+=4)-4,!0)}double(){return this.view.getFloat64((this.pos+=8)-8,!0)}bytes(){let n=this.uint32(),u=this.pos;return this.pos+=n,this.assertBounds(),this.buf.subarray(u,u+n)}string(n){let u=this.uint32(),t=this.pos;this.pos+=u,this.assertBounds();let o=this.buf;if(u<=kt){let r=new Array(u);for(let i=0;i<u;i++){let s=o[t+i];if(s>127)return this.decodeUtf8(o.subarray(t,this.pos),n);r[i]=s}return String.fromCharCode.apply(String,r)}return this.decodeUtf8(o.subarray(t,this.pos),n)}};function Gn(e){if(typeof e=="string")e=Number(e);else if(typeof e!="number")throw new Error("invalid int32: "+typeof e);if(!Number.isInteger(e)||e>Vn||e<$n)throw new Error("invalid int32: "+e)}function At(e){if(typeof e=="string")e=Number(e);else if(typeof e!="number")throw new Error("invalid uint32: "+typeof e);if(!Number.isInteger(e)||e>Wn||e<0)throw new Error("invalid uint32: "+e)}function Oi(e){if(typeof e=="string"){let n=e;if(e=Number(e),Number.isNaN(e)&&n!=="NaN")throw new Error("invalid float32: "+n)}else if(typeof e!="number")throw new Error("invalid float32: "+typeof e);if(!Number.isFinite(Math.fround(e))&&Number.isFinite(e))throw new Error("invalid float32: "+e)}function De(e,n){return Di([e,n])}function Di(e,n){let u=Ai();if(!e.length)return u;if("$typeName"in e[0]&&e[0].$typeName=="google.protobuf.FileDescriptorSet"){for(let o of e[0].file)n?.(o),Ft(o,u);return u}if("$typeName"in e[0]){let s=function(a){let c=[];for(let l of a.dependency){if(u.getFile(l)!=null||i.has(l))continue;let d=r(l);if(!d)throw new Error(`Unable to resolve ${l}, imported by ${a.name}`);"kind"in d?u.addFile(d,!1,!0):(i.add(d.name),c.push(d))}return c.concat(...c.map(s))};var t=s;let o=e[0],r=e[1],i=new Set;for(let a of[o,...s(o)].reverse())n?.(a),Ft(a,u)}else for(let o of e)for(let r of o.files)u.addFile(r);return u}function Ai(){let e=new Map,n=new Map,u=new Map;return{kind:"registry",types:e,extendees:n,[Symbol.iterator](){return e.values()},get files(){return u.values()},addFile(t,o,r){if(u.set(t.proto.name,t),!o)for(let i of Oe(t))this.add(i);if(r)for(let i of t.dependencies)this.addFile(i,o,r)},add(t){if(t.kind=="extension"){let o=n.get(t.extendee.typeName);o||n.set(t.extendee.typeName,o=new Map),o.set(t.number,t)}e.set(t.typeName,t)},get(t){return e.get(t)},getFile(t){return u.get(t)},getMessage(t){let o=e.get(t);return o?.kind=="message"?o:void 0},getEnum(t){let o=e.get(t);return o?.kind=="enum"?o:void 0},getExtension(t){let o=e.get(t);return o?.kind=="extension"?o:void 0},getExtensionFor(t,o){var r;return(r=n.get(t.typeName))===null||r===void 0?void 0:r.get(o)},getService(t){let o=e.get(t);return o?.kind=="service"?o:void 0}}}var Li=998,ki=999,Ui=9999,Ci=9,Z0=10,Q0=11,Pi=12,Ut=14,Yn=3,Fi=2,Ct=1,Mi=0,Bn=1,Pt=2,Gi=3,Wi=1,Vi=2,$i=1,Bi=2;var qi=1002,Gt={998:{fieldPresence:1,enumType:2,repeatedFieldEncoding:2,utf8Validation:3,messageEncoding:1,jsonFormat:2,enforceNamingStyle:2,defaultSymbolVisibility:1,enforceProtoLimits:1},999:{fieldPresence:2,enumType:1,repeatedFieldEncoding:1,utf8Validation:2,messageEncoding:1,jsonFormat:1,enforceNamingStyle:2,defaultSymbolVisibility:1,enforceProtoLimits:1},1e3:{fieldPresence:1,enumType:1,repeatedFieldEncoding:1,utf8Validation:2,messageEncoding:1,jsonFormat:1,enforceNamingStyle:2,defaultSymbolVisibility:1,enforceProtoLimits:1},1001:{fieldPresence:1,enumType:1,repeatedFieldEncoding:1,utf8Validation:2,messageEncoding:1,jsonFormat:1,enforceNamingStyle:1,defaultSymbolVisibility:2,enforceProtoLimits:1},1002:{fieldPresence:1,enumType:1,repeatedFieldEncoding:1,utf8Validation:2,messageEncoding:1,jsonFormat:1,enforceNamingStyle:3,defaultSymbolVisibility:4,enforceProtoLimits:2}};function Ft(e,n){var u,t;let o={kind:"file",proto:e,deprecated:(t=(u=e.options)===null||u===void 0?void 0:u.deprecated)!==null&&t!==void 0?t:!1,edition:ji(e),name:e.name.replace(/\.proto$/,""),dependencies:Ji(e,n),enums:[],messages:[],extensions:[],services:[],toString(){return`file ${e.name}`}},r=new Map,i={get(s){return r.get(s)},add(s){var a;Z(((a=s.proto.options)===null||a===void 0?void 0:a.mapEntry)===!0),r.set(s.typeName,s)}};for(let s of e.enumType)Wt(s,o,void 0,n);for(let s of e.messageType)Vt(s,o,void 0,n,i);for(let s of e.service)Hi(s,o,n);qn(o,n);for(let s of r.values())Hn(s,n,i);for(let s of o.messages)Hn(s,n,i),qn(s,n);n.addFile(o,!0)}function qn(e,n){switch(e.kind){case"file":for(let u of e.proto.extension){let t=Kn(u,e,n);e.extensions.push(t),n.add(t)}break;case"message":for(let u of e.proto.extension){let t=Kn(u,e,n);e.nestedExtensions.push(t),n.add(t)}for(let u of e.nestedMessages)qn(u,n);break}}function Hn(e,n,u){let t=e.proto.oneofDecl.map(r=>Yi(r,e)),o=new Set;for(let r of e.proto.field){let i=Zi(r,t),s=Kn(r,e,n,i,u);e.fields.push(s),e.field[s.localName]=s,i===void 0?e.members.push(s):(i.fields.push(s),o.has(i)||(o.add(i),e.members.push(i)))}for(let r of t.filter(i=>o.has(i)))e.oneofs.push(r);for(let r of e.nestedMessages)Hn(r,n,u)}function Wt(e,n,u,t){var o,r,i,s,a,c,l,d,_;let p=Xi(e.name,e.value),m={kind:"enum",proto:e,deprecated:(r=(o=e.options)===null||o===void 0?void 0:o.deprecated)!==null&&r!==void 0?r:!1,file:n,parent:u,open:!0,name:e.name,typeName:Ae(e,u,n),value:{},values:[],sharedPrefix:p,toString(){return`enum ${this.typeName}`}};m.open=ts(m),t.add(m);for(let h of e.value){let b=h.name,g={kind:"enum_value",proto:h,deprecated:(s=(i=h.options)===null||i===void 0?void 0:i.deprecated)!==null&&s!==void 0?s:!1,parent:m,name:b,localName:L0(p==null?b:b.substring(p.length)),number:h.number,jsonName:(a=zi(h))!==null&&a!==void 0?a:b,toString(){return`enum value ${m.typeName}.${b}`}};m.values.push(g),(c=(d=m.value)[_=h.number])!==null&&c!==void 0||(d[_]=g)}((l=u?.nestedEnums)!==null&&l!==void 0?l:n.enums).push(m)}function Vt(e,n,u,t,o){var r,i,s,a;let c={kind:"message",proto:e,deprecated:(i=(r=e.options)===null||r===void 0?void 0:r.deprecated)!==null&&i!==void 0?i:!1,file:n,parent:u,name:e.name,typeName:Ae(e,u,n),fields:[],field:{},oneofs:[],members:[],nestedEnums:[],nestedMessages:[],nestedExtensions:[],toString(){return`message ${this.typeName}`}};((s=e.options)===null||s===void 0?void 0:s.mapEntry)===!0?o.add(c):(((a=u?.nestedMessages)!==null&&a!==void 0?a:n.messages).push(c),t.add(c));for(let l of e.enumType)Wt(l,n,c,t);for(let l of e.nestedType)Vt(l,n,c,t,o)}function Hi(e,n,u){var t,o;let r={kind:"service",proto:e,deprecated:(o=(t=e.options)===null||t===void 0?void 0:t.deprecated)!==null&&o!==void 0?o:!1,file:n,name:e.name,typeName:Ae(e,void 0,n),methods:[],method:{},toString(){return`service ${this.typeName}`}};n.services.push(r),u.add(r);for(let i of e.method){let s=Ki(i,r,u);r.methods.push(s),r.method[s.localName]=s}}function Ki(e,n,u){var t,o,r,i;let s;e.clientStreaming&&e.serverStreaming?s="bidi_streaming":e.clientStreaming?s="client_streaming":e.serverStreaming?s="server_streaming":s="unary";let a=u.getMessage(p0(e.inputType)),c=u.getMessage(p0(e.outputType));Z(a,`invalid MethodDescriptorProto: input_type ${e.inputType} not found`),Z(c,`invalid MethodDescriptorProto: output_type ${e.inputType} not found`);let l=e.name;return{kind:"rpc",proto:e,deprecated:(o=(t=e.options)===null||t===void 0?void 0:t.deprecated)!==null&&o!==void 0?o:!1,parent:n,name:l,localName:L0(l.length?L0(l[0].toLowerCase()+l.substring(1)):l),methodKind:s,input:a,output:c,idempotency:(i=(r=e.options)===null||r===void 0?void 0:r.idempotencyLevel)!==null&&i!==void 0?i:Mi,toString(){return`rpc ${n.typeName}.${l}`}}}function Yi(e,n){return{kind:"oneof",proto:e,deprecated:!1,parent:n,fields:[],name:e.name,localName:L0(c0(e.name)),toString(){return`oneof ${n.typeName}.${this.name}`}}}function Kn(e,n,u,t,o){var r,i,s;let a=o===void 0,c={kind:"field",proto:e,deprecated:(i=(r=e.options)===null||r===void 0?void 0:r.deprecated)!==null&&i!==void 0?i:!1,name:e.name,number:e.number,scalar:void 0,message:void 0,enum:void 0,presence:es(e,t,a,n),utf8Validation:os(e,n),listKind:void 0,mapKind:void 0,mapKey:void 0,delimitedEncoding:void 0,packed:void 0,longAsString:!1,getDefaultValue:void 0},l;if(a){let m=n.kind=="file"?n:n.file,h=n.kind=="file"?void 0:n,b=Ae(e,h,m);c.kind="extension",c.file=m,c.parent=h,c.oneof=void 0,c.typeName=b,c.jsonName=`[${b}]`,l=()=>`extension ${b}`;let g=u.getMessage(p0(e.extendee));Z(g,`invalid FieldDescriptorProto: extendee ${e.extendee} not found`),c.extendee=g}else{let m=n;Z(m.kind=="message"),c.parent=m,c.oneof=t,c.localName=t?c0(e.name):L0(c0(e.name)),c.jsonName=e.jsonName,l=()=>`field ${m.typeName}.${e.name}`}Object.defineProperty(c,"toString",{value:l,writable:!0,enumerable:!0,configurable:!0});let d=e.label,_=e.type,p=(s=e.options)===null||s===void 0?void 0:s.jstype;if(d===Yn){let m=_==Q0?o?.get(p0(e.typeName)):void 0;if(m){c.fieldKind="map";let{key:h,value:b}=us(m);return c.mapKey=h.scalar,c.mapKind=b.fieldKind,c.message=b.message,c.delimitedEncoding=!1,c.enum=b.enum,c.scalar=b.scalar,c}switch(c.fieldKind="list",_){case Q0:case Z0:c.listKind="message",c.message=u.getMessage(p0(e.typeName)),Z(c.message),c.delimitedEncoding=Mt(e,n);break;case Ut:c.listKind="enum",c.enum=u.getEnum(p0(e.typeName)),Z(c.enum);break;default:c.listKind="scalar",c.scalar=_,c.longAsString=p==Ct;break}return c.packed=ns(e,n),c}switch(_){case Q0:case Z0:c.fieldKind="message",c.message=u.getMessage(p0(e.typeName)),Z(c.message,`invalid FieldDescriptorProto: type_name ${e.typeName} not found`),c.delimitedEncoding=Mt(e,n),c.getDefaultValue=()=>{};break;case Ut:{let m=u.getEnum(p0(e.typeName));Z(m!==void 0,`invalid FieldDescriptorProto: type_name ${e.typeName} not found`),c.fieldKind="enum",c.enum=u.getEnum(p0(e.typeName)),c.getDefaultValue=()=>S0(e,"defaultValue")?Ot(m,e.defaultValue):void 0;break}default:{c.fieldKind="scalar",c.scalar=_,c.longAsString=p==Ct,c.getDefaultValue=()=>S0(e,"defaultValue")?Dt(_,e.defaultValue):void 0;break}}return c}function ji(e){switch(e.syntax){case"":case"proto2":return Li;case"proto3":return ki;case"editions":if(e.edition===Ui)return qi;if(e.edition in Gt)return e.edition;throw new Error(`${e.name}: unsupported edition`);default:throw new Error(`${e.name}: unsupported syntax "${e.syntax}"`)}}function Ji(e,n){return e.dependency.map(u=>{let t=n.getFile(u);if(!t)throw new Error(`Cannot find ${u}, imported by ${e.name}`);return t})}function Xi(e,n){let u=Qi(e)+"_";for(let t of n){if(!t.name.toLowerCase().startsWith(u))return;let o=t.name.substring(u.length);if(o.length==0||/^\d/.test(o))return}return u}function zi(e){var n,u;let r;for(let i of(u=(n=e.options)===null||n===void 0?void 0:n.$unknown)!==null&&u!==void 0?u:[]){if(i.no!==998||i.wireType!==D.LengthDelimited)continue;let s=new o0(new o0(i.data).bytes());for(;s.pos<s.len;){let[a,c]=s.tag();a===1&&c===D.LengthDelimited?r=s.string():s.skip(c,a)}}return r}function Qi(e){return(e.substring(0,1)+e.substring(1).replace(/[A-Z]/g,n=>"_"+n)).toLowerCase()}function Ae(e,n,u){let t;return n?t=`${n.typeName}.${e.name}`:u.proto.package.length>0?t=`${u.proto.package}.${e.name}`:t=`${e.name}`,t}function p0(e){return e.startsWith(".")?e.substring(1):e}function Zi(e,n){if(!S0(e,"oneofIndex")||e.proto3Optional)return;let u=n[e.oneofIndex];return Z(u,`invalid FieldDescriptorProto: oneof #${e.oneofIndex} for field #${e.number} not found`),u}function es(e,n,u,t){if(e.label==Fi)return Gi;if(e.label==Yn)return Pt;if(n||e.proto3Optional||u)return Bn;let o=y0("fieldPresence",{proto:e,parent:t});return o==Pt&&(e.type==Q0||e.type==Z0)?Bn:o}function ns(e,n){if(e.label!=Yn)return!1;switch(e.type){case Ci:case Pi:case Z0:case Q0:return!1}let u=e.options;return u&&S0(u,"packed")?u.packed:Wi==y0("repeatedFieldEncoding",{proto:e,parent:n})}function us(e){let n=e.fields.find(t=>t.number===1),u=e.fields.find(t=>t.number===2);return Z(n&&n.fieldKind=="scalar"&&n.scalar!=f.BYTES&&n.scalar!=f.FLOAT&&n.scalar!=f.DOUBLE&&u&&u.fieldKind!="list"&&u.fieldKind!="map"),{key:n,value:u}}function ts(e){var n;return $i==y0("enumType",{proto:e.proto,parent:(n=e.parent)!==null&&n!==void 0?n:e.file})}function Mt(e,n){return e.type==Z0?!0:Vi==y0("messageEncoding",{proto:e,parent:n})}function os(e,n){return Bi==y0("utf8Validation",{proto:e,parent:n})}function y0(e,n){var u,t;let o=(u=n.proto.options)===null||u===void 0?void 0:u.features;if(o){let r=o[e];if(r!=0)return r}if("kind"in n){if(n.kind=="message")return y0(e,(t=n.parent)!==null&&t!==void 0?t:n.file);let r=Gt[n.edition];if(!r)throw new Error(`feature default for edition ${n.edition} not found`);return r[e]}return y0(e,n.parent)}function Z(e,n){if(!e)throw new Error(n)}function $t(e){let n=rs(e);return n.messageType.forEach(J0),De(n,()=>{}).getFile(n.name)}function rs(e){return Object.assign(Object.create({syntax:"",edition:0}),Object.assign(Object.assign({$typeName:"google.protobuf.FileDescriptorProto",dependency:[],publicDependency:[],weakDependency:[],optionDependency:[],service:[],extension:[]},e),{messageType:e.messageType.map(Bt),enumType:e.enumType.map(qt)}))}function Bt(e){var n,u,t,o,r,i,s,a;return Object.assign(Object.create({visibility:0}),{$typeName:"google.protobuf.DescriptorProto",name:e.name,field:(u=(n=e.field)===null||n===void 0?void 0:n.map(is))!==null&&u!==void 0?u:[],extension:[],nestedType:(o=(t=e.nestedType)===null||t===void 0?void 0:t.map(Bt))!==null&&o!==void 0?o:[],enumType:(i=(r=e.enumType)===null||r===void 0?void 0:r.map(qt))!==null&&i!==void 0?i:[],extensionRange:(a=(s=e.extensionRange)===null||s===void 0?void 0:s.map(l=>Object.assign({$typeName:"google.protobuf.DescriptorProto.ExtensionRange"},l)))!==null&&a!==void 0?a:[],oneofDecl:[],reservedRange:[],reservedName:[]})}function is(e){return Object.assign(Object.create({label:1,typeName:"",extendee:"",defaultValue:"",oneofIndex:0,jsonName:"",proto3Optional:!1}),Object.assign(Object.assign({$typeName:"google.protobuf.FieldDescriptorProto"},e),{options:e.options?ss(e.options):void 0}))}function ss(e){var n,u,t;return Object.assign(Object.create({ctype:0,packed:!1,jstype:0,lazy:!1,unverifiedLazy:!1,deprecated:!1,weak:!1,debugRedact:!1,retention:0}),Object.assign(Object.assign({$typeName:"google.protobuf.FieldOptions"},e),{targets:(n=e.targets)!==null&&n!==void 0?n:[],editionDefaults:(t=(u=e.editionDefaults)===null||u===void 0?void 0:u.map(r=>Object.assign({$typeName:"google.protobuf.FieldOptions.EditionDefault"},r)))!==null&&t!==void 0?t:[],uninterpretedOption:[]}))}function qt(e){return Object.assign(Object.create({visibility:0}),{$typeName:"google.protobuf.EnumDescriptorProto",name:e.name,reservedName:[],reservedRange:[],value:e.value.map(u=>Object.assign({$typeName:"google.protobuf.EnumValueDescriptorProto"},u))})}function A(e,n,...u){return u.reduce((t,o)=>t.nestedMessages[o],e.messages[n])}function y(e,n,...u){if(u.length==0)return e.enums[n];let t=u.pop();return u.reduce((o,r)=>o.nestedMessages[r],e.messages[n]).nestedEnums[t]}function E(e){let n={};for(let u of e.values)n[u.localName]=u.number,n[u.number]=u.localName;return n}var as=$t({name:"google/protobuf/descriptor.proto",package:"google.protobuf",messageType:[{name:"FileDescriptorSet",field:[{name:"file",number:1,type:11,label:3,typeName:".google.protobuf.FileDescriptorProto"}],extensionRange:[{start:536e6,end:536000001}]},{name:"FileDescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"package",number:2,type:9,label:1},{name:"dependency",number:3,type:9,label:3},{name:"public_dependency",number:10,type:5,label:3},{name:"weak_dependency",number:11,type:5,label:3},{name:"option_dependency",number:15,type:9,label:3},{name:"message_type",number:4,type:11,label:3,typeName:".google.protobuf.DescriptorProto"},{name:"enum_type",number:5,type:11,label:3,typeName:".google.protobuf.EnumDescriptorProto"},{name:"service",number:6,type:11,label:3,typeName:".google.protobuf.ServiceDescriptorProto"},{name:"extension",number:7,type:11,label:3,typeName:".google.protobuf.FieldDescriptorProto"},{name:"options",number:8,type:11,label:1,typeName:".google.protobuf.FileOptions"},{name:"source_code_info",number:9,type:11,label:1,typeName:".google.protobuf.SourceCodeInfo"},{name:"syntax",number:12,type:9,label:1},{name:"edition",number:14,type:14,label:1,typeName:".google.protobuf.Edition"}]},{name:"DescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"field",number:2,type:11,label:3,typeName:".google.protobuf.FieldDescriptorProto"},{name:"extension",number:6,type:11,label:3,typeName:".google.protobuf.FieldDescriptorProto"},{name:"nested_type",number:3,type:11,label:3,typeName:".google.protobuf.DescriptorProto"},{name:"enum_type",number:4,type:11,label:3,typeName:".google.protobuf.EnumDescriptorProto"},{name:"extension_range",number:5,type:11,label:3,typeName:".google.protobuf.DescriptorProto.ExtensionRange"},{name:"oneof_decl",number:8,type:11,label:3,typeName:".google.protobuf.OneofDescriptorProto"},{name:"options",number:7,type:11,label:1,typeName:".google.protobuf.MessageOptions"},{name:"reserved_range",number:9,type:11,label:3,typeName:".google.protobuf.DescriptorProto.ReservedRange"},{name:"reserved_name",number:10,type:9,label:3},{name:"visibility",number:11,type:14,label:1,typeName:".google.protobuf.SymbolVisibility"}],nestedType:[{name:"ExtensionRange",field:[{name:"start",number:1,type:5,label:1},{name:"end",number:2,type:5,label:1},{name:"options",number:3,type:11,label:1,typeName:".google.protobuf.ExtensionRangeOptions"}]},{name:"ReservedRange",field:[{name:"start",number:1,type:5,label:1},{name:"end",number:2,type:5,label:1}]}]},{name:"ExtensionRangeOptions",field:[{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"},{name:"declaration",number:2,type:11,label:3,typeName:".google.protobuf.ExtensionRangeOptions.Declaration",options:{retention:2}},{name:"features",number:50,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"verification",number:3,type:14,label:1,typeName:".google.protobuf.ExtensionRangeOptions.VerificationState",defaultValue:"UNVERIFIED",options:{retention:2}}],nestedType:[{name:"Declaration",field:[{name:"number",number:1,type:5,label:1},{name:"full_name",number:2,type:9,label:1},{name:"type",number:3,type:9,label:1},{name:"reserved",number:5,type:8,label:1},{name:"repeated",number:6,type:8,label:1}]}],enumType:[{name:"VerificationState",value:[{name:"DECLARATION",number:0},{name:"UNVERIFIED",number:1}]}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"FieldDescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"number",number:3,type:5,label:1},{name:"label",number:4,type:14,label:1,typeName:".google.protobuf.FieldDescriptorProto.Label"},{name:"type",number:5,type:14,label:1,typeName:".google.protobuf.FieldDescriptorProto.Type"},{name:"type_name",number:6,type:9,label:1},{name:"extendee",number:2,type:9,label:1},{name:"default_value",number:7,type:9,label:1},{name:"oneof_index",number:9,type:5,label:1},{name:"json_name",number:10,type:9,label:1},{name:"options",number:8,type:11,label:1,typeName:".google.protobuf.FieldOptions"},{name:"proto3_optional",number:17,type:8,label:1}],enumType:[{name:"Type",value:[{name:"TYPE_DOUBLE",number:1},{name:"TYPE_FLOAT",number:2},{name:"TYPE_INT64",number:3},{name:"TYPE_UINT64",number:4},{name:"TYPE_INT32",number:5},{name:"TYPE_FIXED64",number:6},{name:"TYPE_FIXED32",number:7},{name:"TYPE_BOOL",number:8},{name:"TYPE_STRING",number:9},{name:"TYPE_GROUP",number:10},{name:"TYPE_MESSAGE",number:11},{name:"TYPE_BYTES",number:12},{name:"TYPE_UINT32",number:13},{name:"TYPE_ENUM",number:14},{name:"TYPE_SFIXED32",number:15},{name:"TYPE_SFIXED64",number:16},{name:"TYPE_SINT32",number:17},{name:"TYPE_SINT64",number:18}]},{name:"Label",value:[{name:"LABEL_OPTIONAL",number:1},{name:"LABEL_REPEATED",number:3},{name:"LABEL_REQUIRED",number:2}]}]},{name:"OneofDescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"options",number:2,type:11,label:1,typeName:".google.protobuf.OneofOptions"}]},{name:"EnumDescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"value",number:2,type:11,label:3,typeName:".google.protobuf.EnumValueDescriptorProto"},{name:"options",number:3,type:11,label:1,typeName:".google.protobuf.EnumOptions"},{name:"reserved_range",number:4,type:11,label:3,typeName:".google.protobuf.EnumDescriptorProto.EnumReservedRange"},{name:"reserved_name",number:5,type:9,label:3},{name:"visibility",number:6,type:14,label:1,typeName:".google.protobuf.SymbolVisibility"}],nestedType:[{name:"EnumReservedRange",field:[{name:"start",number:1,type:5,label:1},{name:"end",number:2,type:5,label:1}]}]},{name:"EnumValueDescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"number",number:2,type:5,label:1},{name:"options",number:3,type:11,label:1,typeName:".google.protobuf.EnumValueOptions"}]},{name:"ServiceDescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"method",number:2,type:11,label:3,typeName:".google.protobuf.MethodDescriptorProto"},{name:"options",number:3,type:11,label:1,typeName:".google.protobuf.ServiceOptions"}]},{name:"MethodDescriptorProto",field:[{name:"name",number:1,type:9,label:1},{name:"input_type",number:2,type:9,label:1},{name:"output_type",number:3,type:9,label:1},{name:"options",number:4,type:11,label:1,typeName:".google.protobuf.MethodOptions"},{name:"client_streaming",number:5,type:8,label:1,defaultValue:"false"},{name:"server_streaming",number:6,type:8,label:1,defaultValue:"false"}]},{name:"FileOptions",field:[{name:"java_package",number:1,type:9,label:1},{name:"java_outer_classname",number:8,type:9,label:1},{name:"java_multiple_files",number:10,type:8,label:1,defaultValue:"false",options:{}},{name:"java_generate_equals_and_hash",number:20,type:8,label:1,options:{deprecated:!0}},{name:"java_string_check_utf8",number:27,type:8,label:1,defaultValue:"false"},{name:"optimize_for",number:9,type:14,label:1,typeName:".google.protobuf.FileOptions.OptimizeMode",defaultValue:"SPEED"},{name:"go_package",number:11,type:9,label:1},{name:"cc_generic_services",number:16,type:8,label:1,defaultValue:"false"},{name:"java_generic_services",number:17,type:8,label:1,defaultValue:"false"},{name:"py_generic_services",number:18,type:8,label:1,defaultValue:"false"},{name:"deprecated",number:23,type:8,label:1,defaultValue:"false"},{name:"cc_enable_arenas",number:31,type:8,label:1,defaultValue:"true",options:{}},{name:"objc_class_prefix",number:36,type:9,label:1},{name:"csharp_namespace",number:37,type:9,label:1},{name:"swift_prefix",number:39,type:9,label:1},{name:"php_class_prefix",number:40,type:9,label:1},{name:"php_namespace",number:41,type:9,label:1},{name:"php_metadata_namespace",number:44,type:9,label:1},{name:"ruby_package",number:45,type:9,label:1},{name:"features",number:50,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],enumType:[{name:"OptimizeMode",value:[{name:"SPEED",number:1},{name:"CODE_SIZE",number:2},{name:"LITE_RUNTIME",number:3}]}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"MessageOptions",field:[{name:"message_set_wire_format",number:1,type:8,label:1,defaultValue:"false"},{name:"no_standard_descriptor_accessor",number:2,type:8,label:1,defaultValue:"false"},{name:"deprecated",number:3,type:8,label:1,defaultValue:"false"},{name:"map_entry",number:7,type:8,label:1},{name:"deprecated_legacy_json_field_conflicts",number:11,type:8,label:1,options:{deprecated:!0}},{name:"features",number:12,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"FieldOptions",field:[{name:"ctype",number:1,type:14,label:1,typeName:".google.protobuf.FieldOptions.CType",defaultValue:"STRING"},{name:"packed",number:2,type:8,label:1},{name:"jstype",number:6,type:14,label:1,typeName:".google.protobuf.FieldOptions.JSType",defaultValue:"JS_NORMAL"},{name:"lazy",number:5,type:8,label:1,defaultValue:"false"},{name:"unverified_lazy",number:15,type:8,label:1,defaultValue:"false"},{name:"deprecated",number:3,type:8,label:1,defaultValue:"false"},{name:"weak",number:10,type:8,label:1,defaultValue:"false",options:{deprecated:!0}},{name:"debug_redact",number:16,type:8,label:1,defaultValue:"false"},{name:"retention",number:17,type:14,label:1,typeName:".google.protobuf.FieldOptions.OptionRetention"},{name:"targets",number:19,type:14,label:3,typeName:".google.protobuf.FieldOptions.OptionTargetType"},{name:"edition_defaults",number:20,type:11,label:3,typeName:".google.protobuf.FieldOptions.EditionDefault"},{name:"features",number:21,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"feature_support",number:22,type:11,label:1,typeName:".google.protobuf.FieldOptions.FeatureSupport"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],nestedType:[{name:"EditionDefault",field:[{name:"edition",number:3,type:14,label:1,typeName:".google.protobuf.Edition"},{name:"value",number:2,type:9,label:1}]},{name:"FeatureSupport",field:[{name:"edition_introduced",number:1,type:14,label:1,typeName:".google.protobuf.Edition"},{name:"edition_deprecated",number:2,type:14,label:1,typeName:".google.protobuf.Edition"},{name:"deprecation_warning",number:3,type:9,label:1},{name:"edition_removed",number:4,type:14,label:1,typeName:".google.protobuf.Edition"},{name:"removal_error",number:5,type:9,label:1}]}],enumType:[{name:"CType",value:[{name:"STRING",number:0},{name:"CORD",number:1},{name:"STRING_PIECE",number:2}]},{name:"JSType",value:[{name:"JS_NORMAL",number:0},{name:"JS_STRING",number:1},{name:"JS_NUMBER",number:2}]},{name:"OptionRetention",value:[{name:"RETENTION_UNKNOWN",number:0},{name:"RETENTION_RUNTIME",number:1},{name:"RETENTION_SOURCE",number:2}]},{name:"OptionTargetType",value:[{name:"TARGET_TYPE_UNKNOWN",number:0},{name:"TARGET_TYPE_FILE",number:1},{name:"TARGET_TYPE_EXTENSION_RANGE",number:2},{name:"TARGET_TYPE_MESSAGE",number:3},{name:"TARGET_TYPE_FIELD",number:4},{name:"TARGET_TYPE_ONEOF",number:5},{name:"TARGET_TYPE_ENUM",number:6},{name:"TARGET_TYPE_ENUM_ENTRY",number:7},{name:"TARGET_TYPE_SERVICE",number:8},{name:"TARGET_TYPE_METHOD",number:9}]}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"OneofOptions",field:[{name:"features",number:1,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"EnumOptions",field:[{name:"allow_alias",number:2,type:8,label:1},{name:"deprecated",number:3,type:8,label:1,defaultValue:"false"},{name:"deprecated_legacy_json_field_conflicts",number:6,type:8,label:1,options:{deprecated:!0}},{name:"features",number:7,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"EnumValueOptions",field:[{name:"deprecated",number:1,type:8,label:1,defaultValue:"false"},{name:"features",number:2,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"debug_redact",number:3,type:8,label:1,defaultValue:"false"},{name:"feature_support",number:4,type:11,label:1,typeName:".google.protobuf.FieldOptions.FeatureSupport"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"ServiceOptions",field:[{name:"features",number:34,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"deprecated",number:33,type:8,label:1,defaultValue:"false"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"MethodOptions",field:[{name:"deprecated",number:33,type:8,label:1,defaultValue:"false"},{name:"idempotency_level",number:34,type:14,label:1,typeName:".google.protobuf.MethodOptions.IdempotencyLevel",defaultValue:"IDEMPOTENCY_UNKNOWN"},{name:"features",number:35,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"uninterpreted_option",number:999,type:11,label:3,typeName:".google.protobuf.UninterpretedOption"}],enumType:[{name:"IdempotencyLevel",value:[{name:"IDEMPOTENCY_UNKNOWN",number:0},{name:"NO_SIDE_EFFECTS",number:1},{name:"IDEMPOTENT",number:2}]}],extensionRange:[{start:990,end:999},{start:1e3,end:536870912}]},{name:"UninterpretedOption",field:[{name:"name",number:2,type:11,label:3,typeName:".google.protobuf.UninterpretedOption.NamePart"},{name:"identifier_value",number:3,type:9,label:1},{name:"positive_int_value",number:4,type:4,label:1},{name:"negative_int_value",number:5,type:3,label:1},{name:"double_value",number:6,type:1,label:1},{name:"string_value",number:7,type:12,label:1},{name:"aggregate_value",number:8,type:9,label:1}],nestedType:[{name:"NamePart",field:[{name:"name_part",number:1,type:9,label:2},{name:"is_extension",number:2,type:8,label:2}]}]},{name:"FeatureSet",field:[{name:"field_presence",number:1,type:14,label:1,typeName:".google.protobuf.FeatureSet.FieldPresence",options:{retention:1,targets:[4,1],editionDefaults:[{value:"EXPLICIT",edition:900},{value:"IMPLICIT",edition:999},{value:"EXPLICIT",edition:1e3}]}},{name:"enum_type",number:2,type:14,label:1,typeName:".google.protobuf.FeatureSet.EnumType",options:{retention:1,targets:[6,1],editionDefaults:[{value:"CLOSED",edition:900},{value:"OPEN",edition:999}]}},{name:"repeated_field_encoding",number:3,type:14,label:1,typeName:".google.protobuf.FeatureSet.RepeatedFieldEncoding",options:{retention:1,targets:[4,1],editionDefaults:[{value:"EXPANDED",edition:900},{value:"PACKED",edition:999}]}},{name:"utf8_validation",number:4,type:14,label:1,typeName:".google.protobuf.FeatureSet.Utf8Validation",options:{retention:1,targets:[4,1],editionDefaults:[{value:"NONE",edition:900},{value:"VERIFY",edition:999}]}},{name:"message_encoding",number:5,type:14,label:1,typeName:".google.protobuf.FeatureSet.MessageEncoding",options:{retention:1,targets:[4,1],editionDefaults:[{value:"LENGTH_PREFIXED",edition:900}]}},{name:"json_format",number:6,type:14,label:1,typeName:".google.protobuf.FeatureSet.JsonFormat",options:{retention:1,targets:[3,6,1],editionDefaults:[{value:"LEGACY_BEST_EFFORT",edition:900},{value:"ALLOW",edition:999}]}},{name:"enforce_naming_style",number:7,type:14,label:1,typeName:".google.protobuf.FeatureSet.EnforceNamingStyle",options:{retention:2,targets:[1,2,3,4,5,6,7,8,9],editionDefaults:[{value:"STYLE_LEGACY",edition:900},{value:"STYLE2024",edition:1001},{value:"STYLE2026",edition:1002}]}},{name:"default_symbol_visibility",number:8,type:14,label:1,typeName:".google.protobuf.FeatureSet.VisibilityFeature.DefaultSymbolVisibility",options:{retention:2,targets:[1],editionDefaults:[{value:"EXPORT_ALL",edition:900},{value:"EXPORT_TOP_LEVEL",edition:1001},{value:"STRICT",edition:1002}]}},{name:"enforce_proto_limits",number:9,type:14,label:1,typeName:".google.protobuf.FeatureSet.ProtoLimitsFeature.EnforceProtoLimits",options:{retention:2,targets:[6,3,4,5],editionDefaults:[{value:"LEGACY_NO_EXPLICIT_LIMITS",edition:900},{value:"PROTO_LIMITS2026",edition:1002}]}}],nestedType:[{name:"VisibilityFeature",enumType:[{name:"DefaultSymbolVisibility",value:[{name:"DEFAULT_SYMBOL_VISIBILITY_UNKNOWN",number:0},{name:"EXPORT_ALL",number:1},{name:"EXPORT_TOP_LEVEL",number:2},{name:"LOCAL_ALL",number:3},{name:"STRICT",number:4}]}]},{name:"ProtoLimitsFeature",enumType:[{name:"EnforceProtoLimits",value:[{name:"PROTO_LIMITS_UNKNOWN",number:0},{name:"LEGACY_NO_EXPLICIT_LIMITS",number:1},{name:"PROTO_LIMITS2026",number:2}]}]}],enumType:[{name:"FieldPresence",value:[{name:"FIELD_PRESENCE_UNKNOWN",number:0},{name:"EXPLICIT",number:1},{name:"IMPLICIT",number:2},{name:"LEGACY_REQUIRED",number:3}]},{name:"EnumType",value:[{name:"ENUM_TYPE_UNKNOWN",number:0},{name:"OPEN",number:1},{name:"CLOSED",number:2}]},{name:"RepeatedFieldEncoding",value:[{name:"REPEATED_FIELD_ENCODING_UNKNOWN",number:0},{name:"PACKED",number:1},{name:"EXPANDED",number:2}]},{name:"Utf8Validation",value:[{name:"UTF8_VALIDATION_UNKNOWN",number:0},{name:"VERIFY",number:2},{name:"NONE",number:3}]},{name:"MessageEncoding",value:[{name:"MESSAGE_ENCODING_UNKNOWN",number:0},{name:"LENGTH_PREFIXED",number:1},{name:"DELIMITED",number:2}]},{name:"JsonFormat",value:[{name:"JSON_FORMAT_UNKNOWN",number:0},{name:"ALLOW",number:1},{name:"LEGACY_BEST_EFFORT",number:2}]},{name:"EnforceNamingStyle",value:[{name:"ENFORCE_NAMING_STYLE_UNKNOWN",number:0},{name:"STYLE2024",number:1},{name:"STYLE_LEGACY",number:2},{name:"STYLE2026",number:3}]}],extensionRange:[{start:1e3,end:9995},{start:9995,end:1e4},{start:1e4,end:10001}]},{name:"FeatureSetDefaults",field:[{name:"defaults",number:1,type:11,label:3,typeName:".google.protobuf.FeatureSetDefaults.FeatureSetEditionDefault"},{name:"minimum_edition",number:4,type:14,label:1,typeName:".google.protobuf.Edition"},{name:"maximum_edition",number:5,type:14,label:1,typeName:".google.protobuf.Edition"}],nestedType:[{name:"FeatureSetEditionDefault",field:[{name:"edition",number:3,type:14,label:1,typeName:".google.protobuf.Edition"},{name:"overridable_features",number:4,type:11,label:1,typeName:".google.protobuf.FeatureSet"},{name:"fixed_features",number:5,type:11,label:1,typeName:".google.protobuf.FeatureSet"}]}]},{name:"SourceCodeInfo",field:[{name:"location",number:1,type:11,label:3,typeName:".google.protobuf.SourceCodeInfo.Location"}],nestedType:[{name:"Location",field:[{name:"path",number:1,type:5,label:3,options:{packed:!0}},{name:"span",number:2,type:5,label:3,options:{packed:!0}},{name:"leading_comments",number:3,type:9,label:1},{name:"trailing_comments",number:4,type:9,label:1},{name:"leading_detached_comments",number:6,type:9,label:3}]}],extensionRange:[{start:536e6,end:536000001}]},{name:"GeneratedCodeInfo",field:[{name:"annotation",number:1,type:11,label:3,typeName:".google.protobuf.GeneratedCodeInfo.Annotation"}],nestedType:[{name:"Annotation",field:[{name:"path",number:1,type:5,label:3,options:{packed:!0}},{name:"source_file",number:2,type:9,label:1},{name:"begin",number:3,type:5,label:1},{name:"end",number:4,type:5,label:1},{name:"semantic",number:5,type:14,label:1,typeName:".google.protobuf.GeneratedCodeInfo.Annotation.Semantic"}],enumType:[{name:"Semantic",value:[{name:"NONE",number:0},{name:"SET",number:1},{name:"ALIAS",number:2}]}]}]}],enumType:[{name:"Edition",value:[{name:"EDITION_UNKNOWN",number:0},{name:"EDITION_LEGACY",number:900},{name:"EDITION_PROTO2",number:998},{name:"EDITION_PROTO3",number:999},{name:"EDITION_2023",number:1e3},{name:"EDITION_2024",number:1001},{name:"EDITION_2026",number:1002},{name:"EDITION_UNSTABLE",number:9999},{name:"EDITION_1_TEST_ONLY",number:1},{name:"EDITION_2_TEST_ONLY",number:2},{name:"EDITION_99997_TEST_ONLY",number:99997},{name:"EDITION_99998_TEST_ONLY",number:99998},{name:"EDITION_99999_TEST_ONLY",number:99999},{name:"EDITION_MAX",number:2147483647}]},{name:"SymbolVisibility",value:[{name:"VISIBILITY_UNSET",number:0},{name:"VISIBILITY_LOCAL",number:1},{name:"VISIBILITY_EXPORT",number:2}]}]});var lo=A(as,1);var Ht;(function(e){e[e.DECLARATION=0]="DECLARATION",e[e.UNVERIFIED=1]="UNVERIFIED"})(Ht||(Ht={}));var Kt;(function(e){e[e.DOUBLE=1]="DOUBLE",e[e.FLOAT=2]="FLOAT",e[e.INT64=3]="INT64",e[e.UINT64=4]="UINT64",e[e.INT32=5]="INT32",e[e.FIXED64=6]="FIXED64",e[e.FIXED32=7]="FIXED32",e[e.BOOL=8]="BOOL",e[e.STRING=9]="STRING",e[e.GROUP=10]="GROUP",e[e.MESSAGE=11]="MESSAGE",e[e.BYTES=12]="BYTES",e[e.UINT32=13]="UINT32",e[e.ENUM=14]="ENUM",e[e.SFIXED32=15]="SFIXED32",e[e.SFIXED64=16]="SFIXED64",e[e.SINT32=17]="SINT32",e[e.SINT64=18]="SINT64"})(Kt||(Kt={}));var Yt;(function(e){e[e.OPTIONAL=1]="OPTIONAL",e[e.REPEATED=3]="REPEATED",e[e.REQUIRED=2]="REQUIRED"})(Yt||(Yt={}));var jt;(function(e){e[e.SPEED=1]="SPEED",e[e.CODE_SIZE=2]="CODE_SIZE",e[e.LITE_RUNTIME=3]="LITE_RUNTIME"})(jt||(jt={}));var Jt;(function(e){e[e.STRING=0]="STRING",e[e.CORD=1]="CORD",e[e.STRING_PIECE=2]="STRING_PIECE"})(Jt||(Jt={}));var Xt;(function(e){e[e.JS_NORMAL=0]="JS_NORMAL",e[e.JS_STRING=1]="JS_STRING",e[e.JS_NUMBER=2]="JS_NUMBER"})(Xt||(Xt={}));var zt;(function(e){e[e.RETENTION_UNKNOWN=0]="RETENTION_UNKNOWN",e[e.RETENTION_RUNTIME=1]="RETENTION_RUNTIME",e[e.RETENTION_SOURCE=2]="RETENTION_SOURCE"})(zt||(zt={}));var Qt;(function(e){e[e.TARGET_TYPE_UNKNOWN=0]="TARGET_TYPE_UNKNOWN",e[e.TARGET_TYPE_FILE=1]="TARGET_TYPE_FILE",e[e.TARGET_TYPE_EXTENSION_RANGE=2]="TARGET_TYPE_EXTENSION_RANGE",e[e.TARGET_TYPE_MESSAGE=3]="TARGET_TYPE_MESSAGE",e[e.TARGET_TYPE_FIELD=4]="TARGET_TYPE_FIELD",e[e.TARGET_TYPE_ONEOF=5]="TARGET_TYPE_ONEOF",e[e.TARGET_TYPE_ENUM=6]="TARGET_TYPE_ENUM",e[e.TARGET_TYPE_ENUM_ENTRY=7]="TARGET_TYPE_ENUM_ENTRY",e[e.TARGET_TYPE_SERVICE=8]="TARGET_TYPE_SERVICE",e[e.TARGET_TYPE_METHOD=9]="TARGET_TYPE_METHOD"})(Qt||(Qt={}));var Le;(function(e){e[e.IDEMPOTENCY_UNKNOWN=0]="IDEMPOTENCY_UNKNOWN",e[e.NO_SIDE_EFFECTS=1]="NO_SIDE_EFFECTS",e[e.IDEMPOTENT=2]="IDEMPOTENT"})(Le||(Le={}));var Zt;(function(e){e[e.DEFAULT_SYMBOL_VISIBILITY_UNKNOWN=0]="DEFAULT_SYMBOL_VISIBILITY_UNKNOWN",e[e.EXPORT_ALL=1]="EXPORT_ALL",e[e.EXPORT_TOP_LEVEL=2]="EXPORT_TOP_LEVEL",e[e.LOCAL_ALL=3]="LOCAL_ALL",e[e.STRICT=4]="STRICT"})(Zt||(Zt={}));var eo;(function(e){e[e.PROTO_LIMITS_UNKNOWN=0]="PROTO_LIMITS_UNKNOWN",e[e.LEGACY_NO_EXPLICIT_LIMITS=1]="LEGACY_NO_EXPLICIT_LIMITS",e[e.PROTO_LIMITS2026=2]="PROTO_LIMITS2026"})(eo||(eo={}));var no;(function(e){e[e.FIELD_PRESENCE_UNKNOWN=0]="FIELD_PRESENCE_UNKNOWN",e[e.EXPLICIT=1]="EXPLICIT",e[e.IMPLICIT=2]="IMPLICIT",e[e.LEGACY_REQUIRED=3]="LEGACY_REQUIRED"})(no||(no={}));var uo;(function(e){e[e.ENUM_TYPE_UNKNOWN=0]="ENUM_TYPE_UNKNOWN",e[e.OPEN=1]="OPEN",e[e.CLOSED=2]="CLOSED"})(uo||(uo={}));var to;(function(e){e[e.REPEATED_FIELD_ENCODING_UNKNOWN=0]="REPEATED_FIELD_ENCODING_UNKNOWN",e[e.PACKED=1]="PACKED",e[e.EXPANDED=2]="EXPANDED"})(to||(to={}));var oo;(function(e){e[e.UTF8_VALIDATION_UNKNOWN=0]="UTF8_VALIDATION_UNKNOWN",e[e.VERIFY=2]="VERIFY",e[e.NONE=3]="NONE"})(oo||(oo={}));var ro;(function(e){e[e.MESSAGE_ENCODING_UNKNOWN=0]="MESSAGE_ENCODING_UNKNOWN",e[e.LENGTH_PREFIXED=1]="LENGTH_PREFIXED",e[e.DELIMITED=2]="DELIMITED"})(ro||(ro={}));var io;(function(e){e[e.JSON_FORMAT_UNKNOWN=0]="JSON_FORMAT_UNKNOWN",e[e.ALLOW=1]="ALLOW",e[e.LEGACY_BEST_EFFORT=2]="LEGACY_BEST_EFFORT"})(io||(io={}));var so;(function(e){e[e.ENFORCE_NAMING_STYLE_UNKNOWN=0]="ENFORCE_NAMING_STYLE_UNKNOWN",e[e.STYLE2024=1]="STYLE2024",e[e.STYLE_LEGACY=2]="STYLE_LEGACY",e[e.STYLE2026=3]="STYLE2026"})(so||(so={}));var ao;(function(e){e[e.NONE=0]="NONE",e[e.SET=1]="SET",e[e.ALIAS=2]="ALIAS"})(ao||(ao={}));var co;(function(e){e[e.EDITION_UNKNOWN=0]="EDITION_UNKNOWN",e[e.EDITION_LEGACY=900]="EDITION_LEGACY",e[e.EDITION_PROTO2=998]="EDITION_PROTO2",e[e.EDITION_PROTO3=999]="EDITION_PROTO3",e[e.EDITION_2023=1e3]="EDITION_2023",e[e.EDITION_2024=1001]="EDITION_2024",e[e.EDITION_2026=1002]="EDITION_2026",e[e.EDITION_UNSTABLE=9999]="EDITION_UNSTABLE",e[e.EDITION_1_TEST_ONLY=1]="EDITION_1_TEST_ONLY",e[e.EDITION_2_TEST_ONLY=2]="EDITION_2_TEST_ONLY",e[e.EDITION_99997_TEST_ONLY=99997]="EDITION_99997_TEST_ONLY",e[e.EDITION_99998_TEST_ONLY=99998]="EDITION_99998_TEST_ONLY",e[e.EDITION_99999_TEST_ONLY=99999]="EDITION_99999_TEST_ONLY",e[e.EDITION_MAX=2147483647]="EDITION_MAX"})(co||(co={}));var po;(function(e){e[e.VISIBILITY_UNSET=0]="VISIBILITY_UNSET",e[e.VISIBILITY_LOCAL=1]="VISIBILITY_LOCAL",e[e.VISIBILITY_EXPORT=2]="VISIBILITY_EXPORT"})(po||(po={}));var cs=["FieldValueInvalidError","FieldListRangeError","ForeignFieldError"],N=class extends Error{constructor(n,u,t="FieldValueInvalidError"){super(u),this.name=t,this.field=()=>n}};function fo(e){return e instanceof Error&&cs.includes(e.name)&&"field"in e&&typeof e.field=="function"}function ee(e,n){return e!==null&&typeof e=="object"&&"$typeName"in e&&typeof e.$typeName=="string"?n===void 0?!0:n.typeName===e.$typeName:!1}function e0(e){return e!==null&&typeof e=="object"&&!Array.isArray(e)}function ne(e,n){var u,t,o,r;if(e0(e)&&M in e&&"add"in e&&"field"in e&&typeof e.field=="function"){if(n!==void 0){let i=n,s=e.field();return i.listKind==s.listKind&&i.scalar===s.scalar&&((u=i.message)===null||u===void 0?void 0:u.typeName)===((t=s.message)===null||t===void 0?void 0:t.typeName)&&((o=i.enum)===null||o===void 0?void 0:o.typeName)===((r=s.enum)===null||r===void 0?void 0:r.typeName)}return!0}return!1}function ue(e,n){var u,t,o,r;if(e0(e)&&M in e&&"has"in e&&"field"in e&&typeof e.field=="function"){if(n!==void 0){let i=n,s=e.field();return i.mapKey===s.mapKey&&i.mapKind==s.mapKind&&i.scalar===s.scalar&&((u=i.message)===null||u===void 0?void 0:u.typeName)===((t=s.message)===null||t===void 0?void 0:t.typeName)&&((o=i.enum)===null||o===void 0?void 0:o.typeName)===((r=s.enum)===null||r===void 0?void 0:r.typeName)}return!0}return!1}function te(e,n){return e0(e)&&M in e&&"desc"in e&&e0(e.desc)&&e.desc.kind==="message"&&(n===void 0||e.desc.typeName==n.typeName)}function mo(e){return _o(e.$typeName)}function j(e){let n=e.fields[0];return _o(e.typeName)&&n!==void 0&&n.fieldKind=="scalar"&&n.name=="value"&&n.number==1}function ke(e){switch(e.typeName){case"google.protobuf.Any":case"google.protobuf.Timestamp":case"google.protobuf.Duration":case"google.protobuf.FieldMask":case"google.protobuf.Struct":case"google.protobuf.Value":case"google.protobuf.ListValue":return!0;default:return j(e)}}var ps=new Set(["google.protobuf.DoubleValue","google.protobuf.FloatValue","google.protobuf.Int64Value","google.protobuf.UInt64Value","google.protobuf.Int32Value","google.protobuf.UInt32Value","google.protobuf.BoolValue","google.protobuf.StringValue","google.protobuf.BytesValue"]);function _o(e){return ps.has(e)}var ls=999,fs=998,ho=2;function k(e,n){return ee(n,e)?n:go(e)(n)}var bo=new WeakMap;function go(e){let n=bo.get(e);return n===void 0&&(n=ms(e),bo.set(e,n)),n}var jn=0,vo=1,So=2,yo=3;function ms(e){let n=e.typeName,{properties:u,prototype:t}=ds(e);return o=>{let r;t!==void 0?(r=Object.create(t),r.$typeName=n):r={$typeName:n};for(let i=0;i<u.length;i++){let s=u[i],a=s.name,c=o?.[a];switch(s.kind){case jn:c!=null?r[a]=s.convert!==void 0?s.convert(c):c:s.constant!==void 0&&(r[a]=s.constant);break;case vo:r[a]=s.convert!==void 0&&Array.isArray(c)?c.map(s.convert):c??[];break;case So:if(s.convert===void 0||!e0(c))r[a]=c??{};else{let l={},d=Object.keys(c);for(let _=0;_<d.length;_++)$(l,d[_],s.convert(c[d[_]]));r[a]=l}break;case yo:{let l=c;if(l?.case!=null){let d=s.convert.get(l.case);if(d!==void 0){r[a]={case:l.case,value:d(l.value)};break}}r[a]={case:void 0};break}}}return r}}function ds(e){var n,u;let t=[],o={},r=bs(e);for(let i of e.members){let s=i.localName;if(i.kind=="oneof"){t.push({name:s,kind:yo,constant:void 0,convert:_s(i)});continue}switch(i.fieldKind){case"message":{t.push({name:s,kind:jn,constant:void 0,convert:Ue(i)});break}case"list":{t.push({name:s,kind:vo,constant:void 0,convert:i.listKind=="message"?(n=Ue(i))!==null&&n!==void 0?n:(a=>a):i.scalar==f.BYTES?oe:void 0});break}case"map":{t.push({name:s,kind:So,constant:void 0,convert:i.mapKind=="message"?(u=Ue(i))!==null&&u!==void 0?u:(a=>a):i.scalar==f.BYTES?oe:void 0});break}default:{let a=hs(i);t.push({name:s,kind:jn,constant:i.presence==ho?a:void 0,convert:i.fieldKind=="scalar"&&i.scalar==f.BYTES?oe:void 0}),r&&(o[s]=a);break}}}return{properties:t,prototype:r?o:void 0}}function _s(e){let n=new Map;for(let u of e.fields){let t;u.fieldKind=="message"?t=Ue(u):u.fieldKind=="scalar"&&u.scalar==f.BYTES&&(t=oe),n.set(u.localName,t??(o=>o))}return n}function Ue(e){if(e.fieldKind=="message"&&!e.oneof&&j(e.message))return e.message.fields[0].scalar==f.BYTES?oe:void 0;if(e.message.typeName=="google.protobuf.Struct"&&e.parent.typeName!=="google.protobuf.Value")return;let n=e.message,u;return t=>!e0(t)||ee(t,n)?t:(u??(u=go(n)),u(t))}function oe(e){return Array.isArray(e)?new Uint8Array(e):e}function bs(e){switch(e.file.edition){case ls:return!1;case fs:return!0;default:return e.fields.some(n=>n.presence!=ho&&n.fieldKind!="message"&&!n.oneof)}}function hs(e){let n=e.getDefaultValue();return n!==void 0?e.fieldKind=="scalar"&&e.longAsString?n.toString():n:e.fieldKind=="scalar"?K(e.scalar,e.longAsString):e.enum.values[0].number}var gs=0;function Y(e){if(vs(e))return{toMessage:u=>Ce(u),toLocal:u=>Pe(u)};if(e.fieldKind=="message"&&!e.oneof&&j(e.message)){let u=e.message,t=u.fields[0].localName;return{toMessage:o=>{let r=k(u);return o!==void 0&&(r[t]=o),r},toLocal:o=>o[t]}}let n=e.message;return{toMessage:u=>u===void 0?k(n):u,toLocal:u=>u}}function vs(e){return e.message.typeName=="google.protobuf.Struct"&&e.parent.typeName!="google.protobuf.Value"}function Ce(e){let n={$typeName:"google.protobuf.Struct",fields:{}};if(e0(e))for(let u of Object.keys(e))$(n.fields,u,Ro(e[u]));return n}function Pe(e){let n={};for(let u of Object.keys(e.fields))$(n,u,Eo(e.fields[u]));return n}function Eo(e){switch(e.kind.case){case"structValue":return Pe(e.kind.value);case"listValue":return e.kind.value.values.map(Eo);case"nullValue":case void 0:return null;default:return e.kind.value}}function Ro(e){let n={$typeName:"google.protobuf.Value",kind:{case:void 0}};switch(typeof e){case"number":n.kind={case:"numberValue",value:e};break;case"string":n.kind={case:"stringValue",value:e};break;case"boolean":n.kind={case:"boolValue",value:e};break;case"object":if(e===null)n.kind={case:"nullValue",value:gs};else if(Array.isArray(e)){let u={$typeName:"google.protobuf.ListValue",values:[]};if(Array.isArray(e))for(let t of e)u.values.push(Ro(t));n.kind={case:"listValue",value:u}}else n.kind={case:"structValue",value:Ce(e)};break}return n}function Jn(e){return Object.assign(Object.assign({readUnknownFields:!0,recursionLimit:100},e),{depth:0})}function l0(e,n,u){let t=k(e);return Xn(e).read(t,new o0(n),Jn(u),n.byteLength),t}var No=new WeakMap;function Xn(e){let n=No.get(e);return n===void 0&&(n=Ss(e)),n}function Ss(e){let n=String(e),u=new Map,t={read:ys(n,u),readGroup:Es(n,u)};No.set(e,t);for(let o of e.fields)u.set(o.number,xo(o));return t}function ys(e,n){return(u,t,o,r)=>{var i;if(++o.depth>o.recursionLimit)throw new Error(`cannot decode ${e} from binary: maximum recursion depth of ${o.recursionLimit} reached`);let s=t.pos+r,a=(i=u.$unknown)!==null&&i!==void 0?i:[];for(;t.pos<s;){let[c,l]=t.tag(),d=n.get(c);if(d===void 0){let _=t.skip(l,c,o.recursionLimit-o.depth);o.readUnknownFields&&a.push({no:c,wireType:l,data:_});continue}d(u,t,o,l)}a.length>0&&(u.$unknown=a),o.depth--}}function Es(e,n){return(u,t,o,r)=>{var i;if(++o.depth>o.recursionLimit)throw new Error(`cannot decode ${e} from binary: maximum recursion depth of ${o.recursionLimit} reached`);let s,a,c=(i=u.$unknown)!==null&&i!==void 0?i:[];for(;t.pos<t.len&&([s,a]=t.tag(),a!=D.EndGroup);){let l=n.get(s);if(l===void 0){let d=t.skip(a,s,o.recursionLimit-o.depth);o.readUnknownFields&&c.push({no:s,wireType:a,data:d});continue}l(u,t,o,a)}if(a!=D.EndGroup||s!==r)throw new Error("invalid end group tag");c.length>0&&(u.$unknown=c),o.depth--}}function To(e,n,u,t,o){xo(u)(e[M],n,o,t)}function xo(e){switch(e.fieldKind){case"scalar":return Rs(e);case"enum":return Ns(e);case"message":return Ts(e);case"list":return xs(e);case"map":return Is(e)}}function Rs(e){let n=Fe(e.scalar,e.utf8Validation,e.longAsString),u=e.localName;if(e.oneof){let t=e.oneof.localName;return(o,r)=>{o[t]={case:u,value:n(r)}}}return(t,o)=>{t[u]=n(o)}}function Ns(e){var n;let u=e.localName,t=(n=e.oneof)===null||n===void 0?void 0:n.localName;if(e.enum.open)return t!==void 0?(i,s)=>{i[t]={case:u,value:s.int32()}}:(i,s)=>{i[u]=s.int32()};let o=e.enum.values,r=e.number;return(i,s,a,c)=>{var l;let d=s.int32();if(o.some(_=>_.number===d))t!==void 0?i[t]={case:u,value:d}:i[u]=d;else if(a.readUnknownFields){let _=[];ht(d,_);let p=(l=i.$unknown)!==null&&l!==void 0?l:[];p.push({no:r,wireType:c,data:new Uint8Array(_)}),i.$unknown=p}}}function Ts(e){let n=e.localName,{toMessage:u,toLocal:t}=Y(e),o=Io(e);if(e.oneof){let r=e.oneof.localName;return(i,s,a)=>{let c=i[r],l=u(c.case===n?c.value:void 0);o(l,s,a),i[r]={case:n,value:t(l)}}}return(r,i,s)=>{let a=u(r[n]);o(a,i,s),r[n]=t(a)}}function Io(e){let n=Xn(e.message);if(e.delimitedEncoding){let u=e.number;return(t,o,r)=>n.readGroup(t,o,r,u)}return(u,t,o)=>n.read(u,t,o,t.uint32())}function xs(e){let n=e.localName;if(e.listKind=="message"){let{toMessage:i,toLocal:s}=Y(e),a=Io(e);return(c,l,d)=>{let _=i(void 0);a(_,l,d),c[n].push(s(_))}}let u=e.listKind=="enum"?f.INT32:e.scalar,t=e.listKind=="scalar"?e.longAsString:!1,o=Fe(u,e.utf8Validation,t),r=u!=f.STRING&&u!=f.BYTES;return(i,s,a,c)=>{let l=i[n];if(c==D.LengthDelimited&&r){let d=s.uint32()+s.pos;for(;s.pos<d;)l.push(o(s))}else l.push(o(s))}}function Is(e){let n=e.localName,u=Fe(e.mapKey,e.utf8Validation,!1),t=K(e.mapKey,!1),o,r;switch(e.mapKind){case"scalar":{let i=e.scalar,s=Fe(i,e.utf8Validation,!1);if(o=a=>s(a),i==f.BYTES)r=()=>new Uint8Array(0);else{let a=K(i,!1);r=()=>a}break}case"enum":{let i=e.enum.values[0].number;o=s=>s.int32(),r=()=>i;break}case"message":{let{toMessage:i,toLocal:s}=Y(e),a=Xn(e.message).read;o=(c,l,d)=>{let _=i(d);return a(_,c,l,c.uint32()),s(_)},r=()=>s(i(void 0));break}}return(i,s,a)=>{let c=i[n],l,d,_=s.uint32(),p=s.pos+_;for(;s.pos<p;){let[m,h]=s.tag();switch(m){case 1:l=u(s);break;case 2:d=o(s,a,d);break;default:s.skip(h,m,a.recursionLimit-a.depth)}}l===void 0&&(l=t),d===void 0&&(d=r()),$(c,l,d)}}function Fe(e,n,u){switch(e){case f.STRING:return t=>t.string(n);case f.BOOL:return t=>t.bool();case f.DOUBLE:return t=>t.double();case f.FLOAT:return t=>t.float();case f.INT32:return t=>t.int32();case f.INT64:return u?t=>String(t.int64()):t=>t.int64();case f.UINT64:return u?t=>String(t.uint64()):t=>t.uint64();case f.FIXED64:return u?t=>String(t.fixed64()):t=>t.fixed64();case f.BYTES:return t=>t.bytes();case f.FIXED32:return t=>t.fixed32();case f.SFIXED32:return t=>t.sfixed32();case f.SFIXED64:return u?t=>String(t.sfixed64()):t=>t.sfixed64();case f.SINT64:return u?t=>String(t.sint64()):t=>t.sint64();case f.UINT32:return t=>t.uint32();case f.SINT32:return t=>t.sint32()}}function x(e,n){var u;let t=l0(lo,A0(e));return t.messageType.forEach(J0),t.dependency=(u=n?.map(r=>r.proto.name))!==null&&u!==void 0?u:[],De(t,r=>n?.find(i=>i.proto.name===r)).getFile(t.name)}var n0=x("Chxnb29nbGUvcHJvdG9idWYvc3RydWN0LnByb3RvEg9nb29nbGUucHJvdG9idWYihAEKBlN0cnVjdBIzCgZmaWVsZHMYASADKAsyIy5nb29nbGUucHJvdG9idWYuU3RydWN0LkZpZWxkc0VudHJ5GkUKC0ZpZWxkc0VudHJ5EgsKA2tleRgBIAEoCRIlCgV2YWx1ZRgCIAEoCzIWLmdvb2dsZS5wcm90b2J1Zi5WYWx1ZToCOAEi6gEKBVZhbHVlEjAKCm51bGxfdmFsdWUYASABKA4yGi5nb29nbGUucHJvdG9idWYuTnVsbFZhbHVlSAASFgoMbnVtYmVyX3ZhbHVlGAIgASgBSAASFgoMc3RyaW5nX3ZhbHVlGAMgASgJSAASFAoKYm9vbF92YWx1ZRgEIAEoCEgAEi8KDHN0cnVjdF92YWx1ZRgFIAEoCzIXLmdvb2dsZS5wcm90b2J1Zi5TdHJ1Y3RIABIwCgpsaXN0X3ZhbHVlGAYgASgLMhouZ29vZ2xlLnByb3RvYnVmLkxpc3RWYWx1ZUgAQgYKBGtpbmQiMwoJTGlzdFZhbHVlEiYKBnZhbHVlcxgBIAMoCzIWLmdvb2dsZS5wcm90b2J1Zi5WYWx1ZSobCglOdWxsVmFsdWUSDgoKTlVMTF9WQUxVRRAAQn8KE2NvbS5nb29nbGUucHJvdG9idWZCC1N0cnVjdFByb3RvUAFaL2dvb2dsZS5nb2xhbmcub3JnL3Byb3RvYnVmL3R5cGVzL2tub3duL3N0cnVjdHBi+AEBogIDR1BCqgIeR29vZ2xlLlByb3RvYnVmLldlbGxLbm93blR5cGVzYgZwcm90bzM"),wo=A(n0,0),zn=A(n0,1),Oo=A(n0,2),Me;(function(e){e[e.NULL_VALUE=0]="NULL_VALUE"})(Me||(Me={}));var U=x("Ch9nb29nbGUvcHJvdG9idWYvdGltZXN0YW1wLnByb3RvEg9nb29nbGUucHJvdG9idWYiKwoJVGltZXN0YW1wEg8KB3NlY29uZHMYASABKAMSDQoFbmFub3MYAiABKAVChQEKE2NvbS5nb29nbGUucHJvdG9idWZCDlRpbWVzdGFtcFByb3RvUAFaMmdvb2dsZS5nb2xhbmcub3JnL3Byb3RvYnVmL3R5cGVzL2tub3duL3RpbWVzdGFtcHBi+AEBogIDR1BCqgIeR29vZ2xlLlByb3RvYnVmLldlbGxLbm93blR5cGVzYgZwcm90bzM"),bp=A(U,0);var B=x("Ch5nb29nbGUvcHJvdG9idWYvZHVyYXRpb24ucHJvdG8SD2dvb2dsZS5wcm90b2J1ZiIqCghEdXJhdGlvbhIPCgdzZWNvbmRzGAEgASgDEg0KBW5hbm9zGAIgASgFQoMBChNjb20uZ29vZ2xlLnByb3RvYnVmQg1EdXJhdGlvblByb3RvUAFaMWdvb2dsZS5nb2xhbmcub3JnL3Byb3RvYnVmL3R5cGVzL2tub3duL2R1cmF0aW9ucGL4AQGiAgNHUEKqAh5Hb29nbGUuUHJvdG9idWYuV2VsbEtub3duVHlwZXNiBnByb3RvMw"),Sp=A(B,0);var ws=x("Chlnb29nbGUvcHJvdG9idWYvYW55LnByb3RvEg9nb29nbGUucHJvdG9idWYiJgoDQW55EhAKCHR5cGVfdXJsGAEgASgJEg0KBXZhbHVlGAIgASgMQnYKE2NvbS5nb29nbGUucHJvdG9idWZCCEFueVByb3RvUAFaLGdvb2dsZS5nb2xhbmcub3JnL3Byb3RvYnVmL3R5cGVzL2tub3duL2FueXBiogIDR1BCqgIeR29vZ2xlLlByb3RvYnVmLldlbGxLbm93blR5cGVzYgZwcm90bzM"),Do=A(ws,0);var Os=2,Ds=3,Ao={writeUnknownFields:!0};function As(e){return e?Object.assign(Object.assign({},Ao),e):Ao}function re(e,n,u){let t=new k0;return Qn(e)(t,As(u),n),t.finish()}var Lo=new WeakMap;function Qn(e){let n=Lo.get(e);return n===void 0&&(n=Ls(e)),n}function Ls(e){let n=e.typeName,u=e.fields.concat().sort((i,s)=>i.number-s.number),t=u[0],o=[],r=(i,s,a)=>{if(a.$typeName!==n&&t!==void 0)throw new N(t,`cannot use ${t} with message ${a.$typeName}`,"ForeignFieldError");for(let l=0;l<o.length;l++)o[l](i,s,a);let c=a.$unknown;if(c!==void 0&&s.writeUnknownFields)for(let l=0;l<c.length;l++){let{no:d,wireType:_,data:p}=c[l];i.tag(d,_).raw(p)}};Lo.set(e,r);for(let i of u)o.push(ko(i));return r}function ko(e){switch(e.fieldKind){case"message":case"scalar":case"enum":return ks(e);case"list":return Cs(e);case"map":return Ps(e)}}function ks(e){let n=Us(e),u=e.localName;if(e.oneof){let t=e.oneof.localName;return(o,r,i)=>{let s=i[t];s.case===u&&n(o,r,s.value)}}if(e.presence!=Os){let t=e.presence==Ds?`cannot encode ${e} to binary: required field not set`:void 0;return(o,r,i)=>{let s=i[u];if(s!==void 0&&Object.prototype.hasOwnProperty.call(i,u))n(o,r,s);else if(t!==void 0)throw new Error(t)}}if(e.fieldKind=="enum"){let t=e.enum.values[0].number;return(o,r,i)=>{let s=i[u];s!==t&&n(o,r,s)}}switch(e.scalar){case f.BOOL:return(t,o,r)=>{let i=r[u];i!==!1&&n(t,o,i)};case f.STRING:return(t,o,r)=>{let i=r[u];i!==""&&n(t,o,i)};case f.BYTES:return(t,o,r)=>{let i=r[u];(!(i instanceof Uint8Array)||i.byteLength>0)&&n(t,o,i)};case f.DOUBLE:case f.FLOAT:return(t,o,r)=>{let i=r[u];Object.is(i,0)||n(t,o,i)};default:return(t,o,r)=>{let i=r[u];i!=0&&n(t,o,i)}}}function Us(e){switch(e.fieldKind){case"message":{let{toMessage:n}=Y(e),u=Co(e);return(t,o,r)=>{u(t,o,n(r))}}case"scalar":case"enum":{let n=e.fieldKind=="enum"?f.INT32:e.scalar,u=e.number,t=We(n),o=Ge(n,e.parent.typeName,e.name);return(r,i,s)=>{r.tag(u,t),o(r,s)}}}}function Cs(e){let n=e.localName,u=e.number;switch(e.listKind){case"message":{let{toMessage:t}=Y(e),o=Co(e);return(r,i,s)=>{let a=s[n];for(let c=0;c<a.length;c++)o(r,i,t(a[c]))}}case"scalar":case"enum":{let t=e.listKind=="enum"?f.INT32:e.scalar,o=Ge(t,e.parent.typeName,e.name);if(e.packed)return(i,s,a)=>{let c=a[n];if(c.length!=0){i.tag(u,D.LengthDelimited).fork();for(let l=0;l<c.length;l++)o(i,c[l]);i.join()}};let r=We(t);return(i,s,a)=>{let c=a[n];for(let l=0;l<c.length;l++)i.tag(u,r),o(i,c[l])}}}}function Ps(e){let n=e.localName,u=e.number,t=Fs(e);if(e.mapKind=="message"){let{toMessage:s}=Y(e),a=Qn(e.message);return(c,l,d)=>{let _=d[n],p=Object.keys(_);for(let m=0;m<p.length;m++){let h=p[m];c.tag(u,D.LengthDelimited).fork(),t(c,h),c.tag(2,D.LengthDelimited).fork(),a(c,l,s(_[h])),c.join(),c.join()}}}let o=e.mapKind=="enum"?f.INT32:e.scalar,r=We(o),i=Ge(o,e.parent.typeName,e.name);return(s,a,c)=>{let l=c[n],d=Object.keys(l);for(let _=0;_<d.length;_++){let p=d[_];s.tag(u,D.LengthDelimited).fork(),t(s,p),s.tag(2,r),i(s,l[p]),s.join()}}}function Fs(e){let n=We(e.mapKey),u=Ge(e.mapKey,e.parent.typeName,e.name),t=Ms(e.mapKey);return(o,r)=>{o.tag(1,n),u(o,t(r))}}function Ms(e){switch(e){case f.STRING:return n=>n;case f.BOOL:return n=>n==="true"?!0:n==="false"?!1:n;case f.UINT64:case f.FIXED64:return n=>{try{return R.uParse(n)}catch{return n}};case f.INT64:case f.SFIXED64:case f.SINT64:return n=>{try{return R.parse(n)}catch{return n}};default:return n=>{let u=Number.parseInt(n);return Number.isFinite(u)?u:n}}}function Ge(e,n,u){let t=Gs(e);return(o,r)=>{try{t(o,r)}catch(i){throw i instanceof Error?new Error(`cannot encode field ${n}.${u} to binary: ${i.message}`):i}}}function Gs(e){switch(e){case f.STRING:return(n,u)=>n.string(u);case f.BOOL:return(n,u)=>n.bool(u);case f.DOUBLE:return(n,u)=>n.double(u);case f.FLOAT:return(n,u)=>n.float(u);case f.INT32:return(n,u)=>n.int32(u);case f.INT64:return(n,u)=>n.int64(u);case f.UINT64:return(n,u)=>n.uint64(u);case f.FIXED64:return(n,u)=>n.fixed64(u);case f.BYTES:return(n,u)=>n.bytes(u);case f.FIXED32:return(n,u)=>n.fixed32(u);case f.SFIXED32:return(n,u)=>n.sfixed32(u);case f.SFIXED64:return(n,u)=>n.sfixed64(u);case f.SINT64:return(n,u)=>n.sint64(u);case f.UINT32:return(n,u)=>n.uint32(u);case f.SINT32:return(n,u)=>n.sint32(u)}}function Uo(e,n,u,t){ko(t)(e,n,u[M])}function Co(e){let n=e.number,u=Qn(e.message);return e.delimitedEncoding?(t,o,r)=>{t.tag(n,D.StartGroup),u(t,o,r),t.tag(n,D.EndGroup)}:(t,o,r)=>{t.tag(n,D.LengthDelimited).fork(),u(t,o,r),t.join()}}function We(e){switch(e){case f.BYTES:case f.STRING:return D.LengthDelimited;case f.DOUBLE:case f.FIXED64:case f.SFIXED64:return D.Bit64;case f.FIXED32:case f.SFIXED32:case f.FLOAT:return D.Bit32;default:return D.Varint}}function Po(e,n,u){let t=!1;return u||(u=k(Do),t=!0),u.value=re(e,n),u.typeUrl=$s(n.$typeName),t?u:void 0}function Vs(e,n){if(e.typeUrl==="")return!1;let u=typeof n=="string"?n:n.typeName,t=Mo(e.typeUrl);return u===t}function Fo(e,n){if(e.typeUrl==="")return;let u=n.kind=="message"?n:n.getMessage(Mo(e.typeUrl));if(!(!u||!Vs(e,u)))return l0(u,e.value)}function $s(e){return`type.googleapis.com/${e}`}function Mo(e){let n=e.lastIndexOf("/"),u=n>=0?e.substring(n+1):e;if(!u.length)throw new Error(`invalid type url: ${e}`);return u}var U0=x("CiBnb29nbGUvcHJvdG9idWYvZmllbGRfbWFzay5wcm90bxIPZ29vZ2xlLnByb3RvYnVmIhoKCUZpZWxkTWFzaxINCgVwYXRocxgBIAMoCUKFAQoTY29tLmdvb2dsZS5wcm90b2J1ZkIORmllbGRNYXNrUHJvdG9QAVoyZ29vZ2xlLmdvbGFuZy5vcmcvcHJvdG9idWYvdHlwZXMva25vd24vZmllbGRtYXNrcGL4AQGiAgNHUEKqAh5Hb29nbGUuUHJvdG9idWYuV2VsbEtub3duVHlwZXNiBnByb3RvMw");var Ve=Date.parse("0001-01-01T00:00:00Z"),$e=Date.parse("9999-12-31T23:59:59Z"),Be=-315576e6,qe=315576e6;function He(e,n){let u=e.fieldKind=="list"?ne(n,e):e.fieldKind=="map"?ue(n,e):eu(e,n);if(u===!0)return;let t;switch(e.fieldKind){case"list":t=`expected ${Vo(e)}, got ${F(n)}`;break;case"map":t=`expected ${$o(e)}, got ${F(n)}`;break;default:t=z(e,n,u)}return new N(e,t)}function Zn(e,n,u){let t=eu(e,u);if(t!==!0)return new N(e,`list item #${n+1}: ${z(e,u,t)}`)}function Go(e,n,u){let t=f0(e.mapKey)(n);if(t!==!0)return new N(e,`invalid map key: ${z({scalar:e.mapKey},n,t)}`);let o=eu(e,u);if(o!==!0)return new N(e,`map entry ${F(n)}: ${z(e,u,o)}`)}function eu(e,n){return e.scalar!==void 0?f0(e.scalar)(n):e.enum!==void 0?e.enum.open?f0(f.INT32)(n):e.enum.values.some(u=>u.number===n):te(n,e.message)}function f0(e){switch(e){case f.DOUBLE:return n=>typeof n=="number";case f.FLOAT:return n=>typeof n!="number"?!1:!Number.isFinite(Math.fround(n))&&Number.isFinite(n)?`${n.toFixed()} out of range`:!0;case f.INT32:case f.SFIXED32:case f.SINT32:return n=>typeof n!="number"||!Number.isInteger(n)?!1:n>Vn||n<$n?`${n.toFixed()} out of range`:!0;case f.FIXED32:case f.UINT32:return n=>typeof n!="number"||!Number.isInteger(n)?!1:n>Wn||n<0?`${n.toFixed()} out of range`:!0;case f.BOOL:return n=>typeof n=="boolean";case f.STRING:return n=>typeof n!="string"?!1:X0().checkUtf8(n)||"invalid UTF8";case f.BYTES:return n=>n instanceof Uint8Array;case f.INT64:case f.SFIXED64:case f.SINT64:return n=>{if(typeof n=="bigint"||typeof n=="number"||typeof n=="string"&&n.length>0)try{return R.parse(n),!0}catch{return`${n} out of range`}return!1};case f.FIXED64:case f.UINT64:return n=>{if(typeof n=="bigint"||typeof n=="number"||typeof n=="string"&&n.length>0)try{return R.uParse(n),!0}catch{return`${n} out of range`}return!1}}}function z(e,n,u){return u=typeof u=="string"?`: ${u}`:`, got ${F(n)}`,e.scalar!==void 0?`expected ${Bs(e.scalar)}`+u:e.enum!==void 0?`expected ${e.enum.toString()}`+u:`expected ${Wo(e.message)}`+u}function F(e){switch(typeof e){case"object":return e===null?"null":e instanceof Uint8Array?`Uint8Array(${e.length})`:Array.isArray(e)?`Array(${e.length})`:ne(e)?Vo(e.field()):ue(e)?$o(e.field()):te(e)?Wo(e.desc):ee(e)?`message ${e.$typeName}`:"object";case"string":return e.length>30?"string":`"${e.split('"').join('\\"')}"`;case"boolean":return String(e);case"number":return String(e);case"bigint":return String(e)+"n";default:return typeof e}}function Wo(e){return`ReflectMessage (${e.typeName})`}function Vo(e){switch(e.listKind){case"message":return`ReflectList (${e.message.toString()})`;case"enum":return`ReflectList (${e.enum.toString()})`;case"scalar":return`ReflectList (${f[e.scalar]})`}}function $o(e){switch(e.mapKind){case"message":return`ReflectMap (${f[e.mapKey]}, ${e.message.toString()})`;case"enum":return`ReflectMap (${f[e.mapKey]}, ${e.enum.toString()})`;case"scalar":return`ReflectMap (${f[e.mapKey]}, ${f[e.scalar]})`}}function Bs(e){switch(e){case f.STRING:return"string";case f.BOOL:return"boolean";case f.INT64:case f.SINT64:case f.SFIXED64:return"bigint (int64)";case f.UINT64:case f.FIXED64:return"bigint (uint64)";case f.BYTES:return"Uint8Array";case f.DOUBLE:return"number (float64)";case f.FLOAT:return"number (float32)";case f.FIXED32:case f.UINT32:return"number (uint32)";case f.INT32:case f.SFIXED32:case f.SINT32:return"number (int32)"}}function Ko(e,n,u=!0){return new Ye(e,n,u)}var Bo=new WeakMap,Ye=class{get sortedFields(){let n=Bo.get(this.desc);if(n)return n;let u=this.desc.fields.concat().sort((t,o)=>t.number-o.number);return Bo.set(this.desc,u),u}constructor(n,u,t=!0){this.lists=new Map,this.maps=new Map,this.check=t,this.desc=n,this.message=this[M]=u??k(n),this.fields=n.fields,this.oneofs=n.oneofs,this.members=n.members}findNumber(n){return this._fieldsByNumber||(this._fieldsByNumber=new Map(this.desc.fields.map(u=>[u.number,u]))),this._fieldsByNumber.get(n)}oneofCase(n){return ie(this.message,n),Rt(this.message,n)}isSet(n){return ie(this.message,n),Nt(this.message,n)}clear(n){ie(this.message,n),wt(this.message,n)}get(n){ie(this.message,n);let u=Tt(this.message,n);switch(n.fieldKind){case"list":let t=this.lists.get(n);return(!t||t[M]!==u)&&this.lists.set(n,t=new tu(n,u,this.check)),t;case"map":let o=this.maps.get(n);return(!o||o[M]!==u)&&this.maps.set(n,o=new ou(n,u,this.check)),o;case"message":return iu(n,u,this.check);case"scalar":return u===void 0?K(n.scalar,!1):su(n,u);case"enum":return u??n.enum.values[0].number}}set(n,u){if(ie(this.message,n),this.check){let o=He(n,u);if(o)throw o}let t;n.fieldKind=="message"?t=ru(n,u):ue(u)||ne(u)?t=u[M]:t=au(n,u),xt(this.message,n,t)}getUnknown(){return this.message.$unknown}setUnknown(n){this.message.$unknown=n}};function ie(e,n){if(n.parent.typeName!==e.$typeName)throw new N(n,`cannot use ${n.toString()} with message ${e.$typeName}`,"ForeignFieldError")}var tu=class{field(){return this._field}get size(){return this._arr.length}constructor(n,u,t){this._field=n,this._arr=this[M]=u,this.check=t}get(n){let u=this._arr[n];return u===void 0?void 0:nu(this._field,u,this.check)}set(n,u){if(n<0||n>=this._arr.length)throw new N(this._field,`list item #${n+1}: out of range`);if(this.check){let t=Zn(this._field,n,u);if(t)throw t}this._arr[n]=qo(this._field,u)}add(n){if(this.check){let u=Zn(this._field,this._arr.length,n);if(u)throw u}this._arr.push(qo(this._field,n))}clear(){this._arr.splice(0,this._arr.length)}[Symbol.iterator](){return this.values()}keys(){return this._arr.keys()}*values(){for(let n of this._arr)yield nu(this._field,n,this.check)}*entries(){for(let n=0;n<this._arr.length;n++)yield[n,nu(this._field,this._arr[n],this.check)]}};var ou=class{constructor(n,u,t=!0){this.obj=this[M]=u??{},this.check=t,this._field=n}field(){return this._field}set(n,u){if(this.check){let t=Go(this._field,n,u);if(t)throw t}return $(this.obj,Ke(n),qs(this._field,u)),this}delete(n){let u=Ke(n),t=Object.prototype.hasOwnProperty.call(this.obj,u);return t&&delete this.obj[u],t}clear(){for(let n of Object.keys(this.obj))delete this.obj[n]}get(n){let u=It(this.obj,Ke(n));return u!==void 0&&(u=uu(this._field,u,this.check)),u}has(n){return Object.prototype.hasOwnProperty.call(this.obj,Ke(n))}*keys(){for(let n of Object.keys(this.obj))yield Ho(n,this._field.mapKey)}*entries(){for(let n of Object.entries(this.obj))yield[Ho(n[0],this._field.mapKey),uu(this._field,n[1],this.check)]}[Symbol.iterator](){return this.entries()}get size(){return Object.keys(this.obj).length}*values(){for(let n of Object.values(this.obj))yield uu(this._field,n,this.check)}forEach(n,u){for(let t of this.entries())n.call(u,t[1],t[0],this)}};function ru(e,n){return te(n)?mo(n.message)&&!e.oneof&&e.fieldKind=="message"?n.message.value:n.desc.typeName=="google.protobuf.Struct"&&e.parent.typeName!="google.protobuf.Value"?Pe(n.message):n.message:n}function iu(e,n,u){return n!==void 0&&(j(e.message)&&!e.oneof&&e.fieldKind=="message"?n={$typeName:e.message.typeName,value:su(e.message.fields[0],n)}:e.message.typeName=="google.protobuf.Struct"&&e.parent.typeName!="google.protobuf.Value"&&e0(n)&&(n=Ce(n))),new Ye(e.message,n,u)}function qo(e,n){return e.listKind=="message"?ru(e,n):au(e,n)}function nu(e,n,u){return e.listKind=="message"?iu(e,n,u):su(e,n)}function qs(e,n){return e.mapKind=="message"?ru(e,n):au(e,n)}function uu(e,n,u){return e.mapKind=="message"?iu(e,n,u):n}function Ke(e){return typeof e=="string"||typeof e=="number"?e:String(e)}function Ho(e,n){switch(n){case f.STRING:return e;case f.INT32:case f.FIXED32:case f.UINT32:case f.SFIXED32:case f.SINT32:{let u=Number.parseInt(e);if(Number.isFinite(u))return u;break}case f.BOOL:switch(e){case"true":return!0;case"false":return!1}break;case f.UINT64:case f.FIXED64:try{return R.uParse(e)}catch{}break;default:try{return R.parse(e)}catch{}break}return e}function su(e,n){switch(e.scalar){case f.INT64:case f.SFIXED64:case f.SINT64:"longAsString"in e&&e.longAsString&&typeof n=="string"&&(n=R.parse(n));break;case f.FIXED64:case f.UINT64:"longAsString"in e&&e.longAsString&&typeof n=="string"&&(n=R.uParse(n));break}return n}function au(e,n){switch(e.scalar){case f.INT64:case f.SFIXED64:case f.SINT64:"longAsString"in e&&e.longAsString?n=String(n):(typeof n=="string"||typeof n=="number")&&(n=R.parse(n));break;case f.FIXED64:case f.UINT64:"longAsString"in e&&e.longAsString?n=String(n):(typeof n=="string"||typeof n=="number")&&(n=R.uParse(n));break}return n}function Yo(e,n,u){Jo(n,e);let t=Hs(e.$unknown,n),[o,r,i]=C0(n),s=Jn(u);for(let a of t)To(o,new o0(a.data),r,a.wireType,s);return i()}function jo(e,n,u){var t;Jo(n,e);let o=((t=e.$unknown)!==null&&t!==void 0?t:[]).filter(c=>c.no!==n.number),[r,i]=C0(n,u),s=new k0;Uo(s,{writeUnknownFields:!0},r,i);let a=new o0(s.finish());for(;a.pos<a.len;){let[c,l]=a.tag(),d=a.skip(l,c);o.push({no:c,wireType:l,data:d})}e.$unknown=o}function Hs(e,n){if(e===void 0)return[];if(n.fieldKind==="enum"||n.fieldKind==="scalar"){for(let u=e.length-1;u>=0;--u)if(e[u].no==n.number)return[e[u]];return[]}return e.filter(u=>u.no===n.number)}function C0(e,n){let u=e.typeName,t=Object.assign(Object.assign({},e),{kind:"field",parent:e.extendee,localName:u}),o=Object.assign(Object.assign({},e.extendee),{fields:[t],members:[t],oneofs:[]}),r=k(o,n!==void 0?{[u]:n}:void 0);return[Ko(o,r),t,()=>{let i=r[u];if(i===void 0){let s=e.message;return j(s)?K(s.fields[0].scalar,s.fields[0].longAsString):k(s)}return i}]}function Jo(e,n){if(e.extendee.typeName!=n.$typeName)throw new Error(`extension ${e.typeName} can only be applied to message ${e.extendee.typeName}`)}var Ks=3,Ys=2,Xo={alwaysEmitImplicit:!1,enumAsInteger:!1,useProtoFieldName:!1};function js(e){return e?Object.assign(Object.assign({},Xo),e):Xo}function Js(e,n,u){return je(e)(js(u),n)}function Qo(e,n,u){var t;let o=Js(e,n,u);return JSON.stringify(o,null,(t=u?.prettySpaces)!==null&&t!==void 0?t:0)}var cu=new WeakMap;function je(e){let n=cu.get(e);return n===void 0&&(n=Xs(e)),n}function Xs(e){let n=e.typeName,u=Qs(e);if(u!==void 0){let s=e.fields[0],a=(c,l)=>{if(l.$typeName!==n&&s!==void 0)throw new N(s,`cannot use ${s} with message ${l.$typeName}`,"ForeignFieldError");return u(c,l)};return cu.set(e,a),a}let t=e.fields.concat().sort((s,a)=>s.number-a.number),o=t[0],r=[],i=(s,a)=>{if(a.$typeName!==n&&o!==void 0)throw new N(o,`cannot use ${o} with message ${a.$typeName}`,"ForeignFieldError");let c={};for(let l=0;l<r.length;l++)r[l](s,a,c);return s.registry&&oa(c,s,s.registry,a,e),c};cu.set(e,i);for(let s of t){let a=Zs(s);r.push(s.jsonName==="__proto__"||s.name==="__proto__"?zs(a):a)}return i}function zs(e){return(n,u,t)=>{let o=Object.create(null);e(n,u,o);for(let r of Object.keys(o))$(t,r,o[r])}}function Qs(e){if(e.typeName.startsWith("google.protobuf."))switch(e.typeName){case"google.protobuf.Any":return(n,u)=>ra(u,n);case"google.protobuf.Timestamp":return(n,u)=>aa(u);case"google.protobuf.Duration":return(n,u)=>ia(u);case"google.protobuf.FieldMask":return(n,u)=>sa(u);case"google.protobuf.Struct":return(n,u)=>ur(u);case"google.protobuf.Value":return(n,u)=>fu(u);case"google.protobuf.ListValue":return(n,u)=>tr(u);default:if(j(e)){let n=e.fields[0],u=n.localName,t=K(n.scalar,!1),o=Je(n);return(r,i)=>{let s=i[u];return o(r,s===void 0?t:s)}}return}}function Zs(e){switch(e.fieldKind){case"scalar":case"enum":case"message":return ea(e);case"list":case"map":{let n=e.fieldKind=="list"?er(e):nr(e),u=e.name,t=e.jsonName,o=e.localName;return(r,i,s)=>{let a=n(r,i[o]);a!==void 0&&(s[r.useProtoFieldName?u:t]=a)}}}}function ea(e){let n=Zo(e),u=e.name,t=e.jsonName,o=e.localName;if(e.oneof){let r=e.oneof.localName;return(i,s,a)=>{let c=s[r];c.case===o&&(a[i.useProtoFieldName?u:t]=n(i,c.value))}}if(e.presence!=Ys){let r=e.presence==Ks?`cannot encode ${e} to JSON: required field not set`:void 0;return(i,s,a)=>{let c=s[o];if(c!==void 0&&Object.prototype.hasOwnProperty.call(s,o))a[i.useProtoFieldName?u:t]=n(i,c);else if(r!==void 0)throw new Error(r)}}if(e.fieldKind=="enum"){let r=e.enum.values[0].number;return(i,s,a)=>{let c=s[o];(c!==r||i.alwaysEmitImplicit)&&(a[i.useProtoFieldName?u:t]=n(i,c))}}switch(e.scalar){case f.BOOL:return(r,i,s)=>{let a=i[o];(a!==!1||r.alwaysEmitImplicit)&&(s[r.useProtoFieldName?u:t]=n(r,a))};case f.STRING:return(r,i,s)=>{let a=i[o];(a!==""||r.alwaysEmitImplicit)&&(s[r.useProtoFieldName?u:t]=n(r,a))};case f.BYTES:return(r,i,s)=>{let a=i[o];(!(a instanceof Uint8Array)||a.byteLength>0||r.alwaysEmitImplicit)&&(s[r.useProtoFieldName?u:t]=n(r,a))};case f.DOUBLE:case f.FLOAT:return(r,i,s)=>{let a=i[o];(!Object.is(a,0)||r.alwaysEmitImplicit)&&(s[r.useProtoFieldName?u:t]=n(r,a))};default:return(r,i,s)=>{let a=i[o];(a!=0||r.alwaysEmitImplicit)&&(s[r.useProtoFieldName?u:t]=n(r,a))}}}function na(e){switch(e.fieldKind){case"scalar":case"enum":case"message":return Zo(e);case"list":return er(e);case"map":return nr(e)}}function Zo(e){switch(e.fieldKind){case"scalar":return Je(e);case"enum":return lu(e);case"message":return pu(e)}}function pu(e){let{toMessage:n}=Y(e),u=je(e.message);return(t,o)=>u(t,n(o))}function er(e){let n=ua(e);return(u,t)=>{let o=t;if(o.length==0&&!u.alwaysEmitImplicit)return;let r=[];for(let i=0;i<o.length;i++)r.push(n(u,o[i]));return r}}function ua(e){switch(e.listKind){case"scalar":return Je(e);case"enum":return lu(e);case"message":return pu(e)}}function nr(e){let n=ta(e);return(u,t)=>{let o=t,r=Object.keys(o);if(r.length==0&&!u.alwaysEmitImplicit)return;let i={};for(let s=0;s<r.length;s++){let a=r[s];$(i,a,n(u,o[a]))}return i}}function ta(e){switch(e.mapKind){case"scalar":return Je(e);case"enum":return lu(e);case"message":return pu(e)}}function lu(e){let n=e.enum;return n.typeName=="google.protobuf.NullValue"?(u,t)=>{if(typeof t!="number")throw zo(n,t);return null}:(u,t)=>{var o,r;if(typeof t!="number")throw zo(n,t);return u.enumAsInteger?t:(r=(o=n.value[t])===null||o===void 0?void 0:o.jsonName)!==null&&r!==void 0?r:t}}function zo(e,n){return new Error(`cannot encode ${e} to JSON: expected number, got ${F(n)}`)}function Je(e){switch(e.scalar){case f.INT32:case f.SFIXED32:case f.SINT32:case f.FIXED32:case f.UINT32:return(n,u)=>{if(typeof u!="number")throw P0(e,u);return u};case f.FLOAT:case f.DOUBLE:return(n,u)=>{if(typeof u!="number")throw P0(e,u);return Number.isNaN(u)?"NaN":u===Number.POSITIVE_INFINITY?"Infinity":u===Number.NEGATIVE_INFINITY?"-Infinity":u};case f.STRING:return(n,u)=>{if(typeof u!="string")throw P0(e,u);return u};case f.BOOL:return(n,u)=>{if(typeof u!="boolean")throw P0(e,u);return u};case f.UINT64:case f.FIXED64:case f.INT64:case f.SFIXED64:case f.SINT64:return(n,u)=>{if(typeof u=="bigint"||typeof u=="string"||typeof u=="number"&&Number.isInteger(u))return u.toString();throw P0(e,u)};case f.BYTES:return(n,u)=>{if(u instanceof Uint8Array)return j0(u);throw P0(e,u)}}}function P0(e,n){var u;return new Error(`cannot encode ${e} to JSON: ${(u=He(e,n))===null||u===void 0?void 0:u.message}`)}function oa(e,n,u,t,o){let r=t.$unknown;if(r===void 0)return;let i=new Set;for(let s=0;s<r.length;s++){let{no:a}=r[s];if(!i.has(a)){i.add(a);let c=u.getExtensionFor(o,a);if(!c)continue;let l=Yo(t,c),[d,_]=C0(c,l),p=d[M],m=na(_)(n,p[_.localName]);m!==void 0&&(e[c.jsonName]=m)}}}function ra(e,n){if(e.typeUrl==="")return{};let{registry:u}=n,t,o;if(u&&(t=Fo(e,u),t&&(o=u.getMessage(t.$typeName))),!o||!t)throw new Error(`cannot encode message ${e.$typeName} to JSON: "${e.typeUrl}" is not in the type registry`);let r=ke(o)?{value:je(o)(n,t)}:je(o)(n,t);return r["@type"]=e.typeUrl,r}function ia(e){let n=Number(e.seconds),u=e.nanos;if(n>qe||n<Be)throw new Error(`cannot encode message ${e.$typeName} to JSON: value out of range`);if(n>0&&u<0||n<0&&u>0)throw new Error(`cannot encode message ${e.$typeName} to JSON: nanos sign must match seconds sign`);let t=e.seconds.toString();if(u!==0){let o=Math.abs(u).toString();o="0".repeat(9-o.length)+o,o.substring(3)==="000000"?o=o.substring(0,3):o.substring(6)==="000"&&(o=o.substring(0,6)),t+="."+o,u<0&&n==0&&(t="-"+t)}return t+"s"}function sa(e){return e.paths.map(n=>{if(Ie(c0(n))!==n)throw new Error(`cannot encode message ${e.$typeName} to JSON: lowerCamelCase of path name "${n}" is irreversible`);return c0(n)}).join(",")}function ur(e){let n={},u=Object.keys(e.fields);for(let t=0;t<u.length;t++){let o=u[t];$(n,o,fu(e.fields[o]))}return n}function fu(e){switch(e.kind.case){case"nullValue":return null;case"numberValue":if(!Number.isFinite(e.kind.value))throw new Error(`${e.$typeName} cannot be NaN or Infinity`);return e.kind.value;case"boolValue":return e.kind.value;case"stringValue":return e.kind.value;case"structValue":return ur(e.kind.value);case"listValue":return tr(e.kind.value);default:throw new Error(`${e.$typeName} must have a value`)}}function tr(e){return e.values.map(fu)}function aa(e){let n=Number(e.seconds)*1e3;if(n<Ve||n>$e)throw new Error(`cannot encode message ${e.$typeName} to JSON: must be from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z inclusive`);if(e.nanos<0)throw new Error(`cannot encode message ${e.$typeName} to JSON: nanos must not be negative`);if(e.nanos>999999999)throw new Error(`cannot encode message ${e.$typeName} to JSON: nanos must not be greater than 999999999`);let u="Z";if(e.nanos>0){let t=(e.nanos+1e9).toString().substring(1);t.substring(3)==="000000"?u="."+t.substring(0,3)+"Z":t.substring(6)==="000"?u="."+t.substring(0,6)+"Z":u="."+t+"Z"}return new Date(n).toISOString().replace(".000Z",u)}var ca=2;function pa(e){return Object.assign(Object.assign({ignoreUnknownFields:!1,recursionLimit:100},e),{depth:0})}function rr(e,n,u){return du(e,ya(n,e.typeName),u)}function du(e,n,u){let t=k(e);return la(e,t,n,u),t}function la(e,n,u,t){try{F0(e)(n,u,pa(t))}catch(o){throw fo(o)?new Error(`cannot decode ${o.field()} from JSON: ${o.message}`,{cause:o}):o}}var mu=new WeakMap;function F0(e){let n=mu.get(e);return n===void 0&&(n=fa(e)),n}function fa(e){let n=String(e),u=ma(e);if(u!==void 0){let i=(s,a,c)=>{if(++c.depth>c.recursionLimit)throw new Error(`cannot decode ${n} from JSON: maximum recursion depth of ${c.recursionLimit} reached`);u(s,a,c),c.depth--};return mu.set(e,i),i}let t=e.typeName,o=new Map,r=(i,s,a)=>{var c;if(++a.depth>a.recursionLimit)throw new Error(`cannot decode ${n} from JSON: maximum recursion depth of ${a.recursionLimit} reached`);if(s==null||Array.isArray(s)||typeof s!="object")throw new Error(`cannot decode ${n} from JSON: ${F(s)}`);let l=new Map,d=new Set,_=Object.keys(s);for(let p=0;p<_.length;p++){let m=_[p],h=s[m],b=o.get(m);if(b!==void 0){let g=b.field;if(d.has(g))throw new N(g,"set multiple times");if(d.add(g),b.oneofScalarNullSkip&&h===null)continue;if(b.oneof){let S=l.get(b.oneof);if(S!==void 0)throw new N(b.oneof,`oneof set multiple times by ${S.name} and ${g.name}`);l.set(b.oneof,g)}b.read(i,h,a)}else{let g=m.startsWith("[")&&m.endsWith("]")?(c=a.registry)===null||c===void 0?void 0:c.getExtension(m.substring(1,m.length-1)):void 0;if(g?.extendee.typeName==t){let[S,O,w]=C0(g);or(O)(S[M],h,a),jo(i,g,w())}if(g===void 0&&!a.ignoreUnknownFields)throw new Error(`cannot decode ${n} from JSON: key "${m}" is unknown`)}}a.depth--};mu.set(e,r);for(let i of e.fields){let s={read:or(i),field:i,oneof:i.oneof,oneofScalarNullSkip:i.oneof!==void 0&&i.fieldKind=="scalar"};o.set(i.name,s).set(i.jsonName,s)}return r}function ma(e){if(e.typeName.startsWith("google.protobuf."))switch(e.typeName){case"google.protobuf.Any":return(n,u,t)=>Ra(n,u,t);case"google.protobuf.Timestamp":return(n,u)=>Na(n,u);case"google.protobuf.Duration":return(n,u)=>Ta(n,u);case"google.protobuf.FieldMask":return(n,u)=>xa(n,u);case"google.protobuf.Struct":return(n,u,t)=>cr(n,u,t);case"google.protobuf.Value":return(n,u,t)=>vu(n,u,t);case"google.protobuf.ListValue":return(n,u,t)=>pr(n,u,t);default:if(j(e)){let n=e.fields[0],u=n.localName,t=n.scalar,o=n.longAsString,r=sr(n);return(i,s)=>{s===null?i[u]=K(t,o):i[u]=r(s)}}return}}function or(e){switch(e.fieldKind){case"scalar":return da(e);case"enum":return _a(e);case"message":return ba(e);case"list":return ha(e);case"map":return va(e)}}function da(e){let n=sr(e),u=e.localName;if(e.oneof){let o=e.oneof.localName;return(r,i)=>{r[o]={case:u,value:n(i)}}}let t=ir(e);return(o,r)=>{r===null?t(o):o[u]=n(r)}}function ir(e){let n=e.localName;if(e.presence!=ca)return o=>{delete o[n]};if(e.fieldKind=="enum"){let o=e.enum.values[0].number;return r=>{r[n]=o}}let u=e.scalar,t=e.longAsString;return o=>{o[n]=K(u,t)}}function _a(e){let n=_u(e.enum),u=bu(e.enum),t=e.localName,o=e.enum.typeName!="google.protobuf.NullValue";if(e.oneof){let i=e.oneof.localName;return(s,a,c)=>{if(a===null&&o){s[i].case===t&&(s[i]={case:void 0});return}let l=n(a,c.ignoreUnknownFields);if(l===M0)return;let d=u(l);if(d!==!0)throw new N(e,z(e,l,d));s[i]={case:t,value:l}}}let r=ir(e);return(i,s,a)=>{if(s===null&&o){r(i);return}let c=n(s,a.ignoreUnknownFields);if(c===M0)return;let l=u(c);if(l!==!0)throw new N(e,z(e,c,l));i[t]=c}}function ba(e){let n=e.localName,{toMessage:u,toLocal:t}=Y(e),o=F0(e.message),r=e.message.typeName!="google.protobuf.Value";if(e.oneof){let i=e.oneof.localName;return(s,a,c)=>{let l=s[i];if(a===null&&r){l.case===n&&(s[i]={case:void 0});return}let d=u(l.case===n?l.value:void 0);o(d,a,c),s[i]={case:n,value:t(d)}}}return(i,s,a)=>{if(s===null&&r){delete i[n];return}let c=u(i[n]);o(c,s,a),i[n]=t(c)}}function ha(e){let n=e.localName,u=ga(e);return(t,o,r)=>{if(o===null)return;if(!Array.isArray(o))throw new N(e,"expected Array, got "+F(o));let i=t[n];for(let s=0;s<o.length;s++){let a=u(o[s],r,i.length);a!==M0&&i.push(a)}}}function ga(e){switch(e.listKind){case"scalar":{let n=hu(e),u=f0(e.scalar),t=gu(e);return(o,r,i)=>{if(o===null)throw new N(e,"list item must not be null");let s=n(o),a=u(s);if(a!==!0)throw new N(e,`list item #${i+1}: ${z(e,s,a)}`);return t(s)}}case"enum":{let n=_u(e.enum),u=bu(e.enum),t=e.enum.typeName!="google.protobuf.NullValue";return(o,r,i)=>{if(o===null&&t)throw new N(e,"list item must not be null");let s=n(o,r.ignoreUnknownFields);if(s===M0)return s;let a=u(s);if(a!==!0)throw new N(e,`list item #${i+1}: ${z(e,s,a)}`);return s}}case"message":{let{toMessage:n,toLocal:u}=Y(e),t=F0(e.message),o=e.message.typeName!="google.protobuf.Value";return(r,i)=>{if(r===null&&o)throw new N(e,"list item must not be null");let s=n(void 0);return t(s,r,i),u(s)}}}}function va(e){let n=e.localName,u=e.mapKey,t=Sa(u),o=f0(u),r,i,s=c=>c,a=!0;switch(e.mapKind){case"scalar":{r=hu(e),i=f0(e.scalar),s=gu(e);break}case"enum":{let c=_u(e.enum);r=(l,d)=>c(l,d.ignoreUnknownFields),i=bu(e.enum),a=e.enum.typeName!="google.protobuf.NullValue";break}case"message":{let{toMessage:c,toLocal:l}=Y(e),d=F0(e.message);a=e.message.typeName!="google.protobuf.Value",r=(_,p)=>{let m=c(void 0);return d(m,_,p),l(m)};break}}return(c,l,d)=>{if(l===null)return;if(typeof l!="object"||Array.isArray(l))throw new N(e,"expected object, got "+F(l));let _=c[n],p=new Set,m=Object.keys(l);for(let h=0;h<m.length;h++){let b=m[h],g=l[b],S=t(b);if(p.has(S))throw new N(e,`duplicate map key "${b}"`);if(p.add(S),g===null&&a)throw new N(e,"map value must not be null");let O=r(g,d);if(O===M0)continue;let w=o(S);if(w!==!0)throw new N(e,`invalid map key: ${z({scalar:u},S,w)}`);if(i!==void 0){let i0=i(O);if(i0!==!0)throw new N(e,`map entry ${F(S)}: ${z(e,O,i0)}`)}$(_,S,s(O))}}}var M0=Symbol();function _u(e){let n=e.values[0].number,u=new Map;for(let t of e.values)u.set(t.jsonName,t.number);for(let t of e.values)u.set(t.name,t.number);return(t,o)=>{if(t===null)return n;switch(typeof t){case"number":if(Number.isInteger(t))return t;break;case"string":{let r=u.get(t);if(r!==void 0)return r;if(o)return M0;break}}throw new Error(`cannot decode ${e} from JSON: ${F(t)}`)}}function bu(e){if(e.open)return f0(f.INT32);let n=e.values;return u=>n.some(t=>t.number===u)}function sr(e){let n=hu(e),u=f0(e.scalar),t=gu(e);return o=>{let r=n(o),i=u(r);if(i!==!0)throw new N(e,z(e,r,i));return t(r)}}function hu(e){switch(e.scalar){case f.DOUBLE:case f.FLOAT:return n=>{if(n==="NaN")return NaN;if(n==="Infinity")return Number.POSITIVE_INFINITY;if(n==="-Infinity")return Number.NEGATIVE_INFINITY;if(typeof n=="number"){if(Number.isNaN(n))throw new N(e,"unexpected NaN number");if(!Number.isFinite(n))throw new N(e,"unexpected infinite number");return n}if(typeof n=="string"){if(n===""||n.trim().length!==n.length)return n;let u=Number(n);return Number.isFinite(u)?u:n}return n};case f.INT32:case f.FIXED32:case f.SFIXED32:case f.SINT32:case f.UINT32:return ar;case f.BYTES:return n=>{if(typeof n=="string"){if(n==="")return new Uint8Array(0);try{return A0(n)}catch(u){let t=u instanceof Error?u.message:String(u);throw new N(e,t)}}return n};default:return n=>n}}function gu(e){let n=e.fieldKind!=="map"&&e.longAsString;switch(e.scalar){case f.INT64:case f.SFIXED64:case f.SINT64:return n?u=>String(u):u=>typeof u=="string"||typeof u=="number"?R.parse(u):u;case f.FIXED64:case f.UINT64:return n?u=>String(u):u=>typeof u=="string"||typeof u=="number"?R.uParse(u):u;default:return u=>u}}function Sa(e){switch(e){case f.BOOL:return n=>{switch(n){case"true":return!0;case"false":return!1}return n};case f.INT32:case f.FIXED32:case f.UINT32:case f.SFIXED32:case f.SINT32:return ar;case f.INT64:case f.SINT64:case f.SFIXED64:case f.UINT64:case f.FIXED64:return n=>/^-?0+$/.test(n)?"0":n.replace(/^(-?)0+(?=\d)/,"$1");default:return n=>n}}function ar(e){if(typeof e=="string"){if(e===""||e.trim().length!==e.length)return e;let n=Number(e);return Number.isNaN(n)?e:n}return e}function ya(e,n){let u;try{u=JSON.parse(e)}catch(t){let o=t instanceof Error?t.message:String(t);throw new Error(`cannot decode message ${n} from JSON: ${o}`,{cause:t})}return Ea(e,n),u}function Ea(e,n){let u=[],t=!1,o=0;for(;o<e.length;)switch(e[o]){case"{":u.push(new Set),t=!0,o++;break;case"[":u.push(null),t=!1,o++;break;case"}":case"]":u.pop(),t=!1,o++;break;case",":t=u[u.length-1]!=null,o++;break;case":":t=!1,o++;break;case'"':{let r=o++,i=!1;for(;o<e.length;){if(e[o]=="\\"){i=!0,o+=2;continue}if(e[o]=='"')break;o++}let s=o++,a=u[u.length-1];if(t&&a){let c=i?JSON.parse(e.substring(r,s+1)):e.substring(r+1,s);if(a.has(c))throw new Error(`cannot decode message ${n} from JSON: duplicate object key "${c}"`);a.add(c)}t=!1;break}default:o++;break}}function Ra(e,n,u){var t;if(n===null||Array.isArray(n)||typeof n!="object")throw new Error(`cannot decode message ${e.$typeName} from JSON: expected object but got ${F(n)}`);if(Object.keys(n).length==0)return;let o=n["@type"];if(typeof o!="string"||o=="")throw new Error(`cannot decode message ${e.$typeName} from JSON: "@type" is empty`);let r=o.includes("/")?o.substring(o.lastIndexOf("/")+1):o;if(!r.length)throw new Error(`cannot decode message ${e.$typeName} from JSON: "@type" is invalid`);let i=(t=u.registry)===null||t===void 0?void 0:t.getMessage(r);if(!i)throw new Error(`cannot decode message ${e.$typeName} from JSON: ${o} is not in the type registry`);let s=k(i);if(ke(i)&&Object.prototype.hasOwnProperty.call(n,"value"))F0(i)(s,n.value,u);else{let a={};for(let c of Object.keys(n))c!=="@type"&&$(a,c,n[c]);F0(i)(s,a,u)}Po(i,s,e)}function Na(e,n){if(typeof n!="string")throw new Error(`cannot decode message ${e.$typeName} from JSON: ${F(n)}`);let u=n.match(/^([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|([+-][0-9][0-9]:[0-9][0-9]))$/);if(!u)throw new Error(`cannot decode message ${e.$typeName} from JSON: invalid RFC 3339 string`);let t=Date.parse(u[1]+"-"+u[2]+"-"+u[3]+"T"+u[4]+":"+u[5]+":"+u[6]+(u[8]?u[8]:"Z"));if(Number.isNaN(t))throw new Error(`cannot decode message ${e.$typeName} from JSON: invalid RFC 3339 string`);if(t<Ve||t>$e)throw new Error(`cannot decode message ${e.$typeName} from JSON: must be from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z inclusive`);e.seconds=R.parse(t/1e3),e.nanos=0,u[7]&&(e.nanos=parseInt("1"+u[7]+"0".repeat(9-u[7].length))-1e9)}function Ta(e,n){if(typeof n!="string")throw new Error(`cannot decode message ${e.$typeName} from JSON: ${F(n)}`);let u=n.match(/^(-?[0-9]+)(?:\.([0-9]+))?s/);if(u===null)throw new Error(`cannot decode message ${e.$typeName} from JSON: ${F(n)}`);let t=Number(u[1]);if(t>qe||t<Be)throw new Error(`cannot decode message ${e.$typeName} from JSON: ${F(n)}`);if(e.seconds=R.parse(t),typeof u[2]!="string")return;let o=u[2]+"0".repeat(9-u[2].length);e.nanos=parseInt(o),(t<0||Object.is(t,-0))&&(e.nanos=-e.nanos)}function xa(e,n){if(typeof n!="string")throw new Error(`cannot decode message ${e.$typeName} from JSON: ${F(n)}`);n!==""&&(e.paths=n.split(",").map(u=>{if(u.includes("_"))throw new Error(`cannot decode message ${e.$typeName} from JSON: path names must be lowerCamelCase`);return Ie(u)}))}function cr(e,n,u){if(typeof n!="object"||n==null||Array.isArray(n))throw new Error(`cannot decode message ${e.$typeName} from JSON ${F(n)}`);let t=Object.keys(n);for(let o=0;o<t.length;o++){let r=t[o],i=k(zn);vu(i,n[r],u),$(e.fields,r,i)}}function vu(e,n,u){if(++u.depth>u.recursionLimit)throw new Error(`cannot decode ${e.$typeName} from JSON: maximum recursion depth of ${u.recursionLimit} reached`);switch(typeof n){case"number":e.kind={case:"numberValue",value:n};break;case"string":e.kind={case:"stringValue",value:n};break;case"boolean":e.kind={case:"boolValue",value:n};break;case"object":if(n===null)e.kind={case:"nullValue",value:Me.NULL_VALUE};else if(Array.isArray(n)){let t=k(Oo);pr(t,n,u),e.kind={case:"listValue",value:t}}else{let t=k(wo);cr(t,n,u),e.kind={case:"structValue",value:t}}break;default:throw new Error(`cannot decode message ${e.$typeName} from JSON ${F(n)}`)}return u.depth--,e}function pr(e,n,u){if(!Array.isArray(n))throw new Error(`cannot decode message ${e.$typeName} from JSON ${F(n)}`);for(let t=0;t<n.length;t++){let o=k(zn);vu(o,n[t],u),e.values.push(o)}}function se(e){let n=v[e];return typeof n!="string"?e.toString():n[0].toLowerCase()+n.substring(1).replace(/[A-Z]/g,u=>"_"+u.toLowerCase())}var Xe;function lr(e){if(!Xe){Xe={};for(let n of Object.values(v))typeof n!="string"&&(Xe[se(n)]=n)}return Xe[e]}var T=class e extends Error{constructor(n,u=v.Unknown,t,o,r){super(Ia(n,u)),this.name="ConnectError",this.isWireError=!1,Object.setPrototypeOf(this,new.target.prototype),this.rawMessage=n,this.code=u,this.metadata=new Headers(t??{}),this.details=o??[],this.cause=r}static from(n,u=v.Unknown){return n instanceof e?n:n instanceof Error?n.name=="AbortError"||n.name=="TimeoutError"?new e(n.message,v.Canceled):new e(n.message,u,void 0,void 0,n):new e(String(n),u,void 0,void 0,n)}static[Symbol.hasInstance](n){return n instanceof Error?Object.getPrototypeOf(n)===e.prototype?!0:n.name==="ConnectError"&&"code"in n&&typeof n.code=="number"&&"metadata"in n&&"details"in n&&Array.isArray(n.details)&&"rawMessage"in n&&typeof n.rawMessage=="string"&&"cause"in n:!1}findDetails(n){let u=n.kind==="message"?{getMessage:o=>o===n.typeName?n:void 0}:n,t=[];for(let o of this.details){if("desc"in o){u.getMessage(o.desc.typeName)&&t.push(k(o.desc,o.value));continue}let r=u.getMessage(o.type);if(r)try{t.push(l0(r,o.value))}catch{}}return t}};function Ia(e,n){return e.length?`[${se(n)}] ${e}`:`[${se(n)}]`}function Su(...e){let n=new Headers;for(let u of e)u.forEach((t,o)=>{n.append(o,t)});return n}function fr(e,n){let u={};for(let t of e.methods){let o=n(t);o!=null&&(u[t.localName]=o)}return u}var ze=1;function mr(e,n,u=!1){if(n>e){let t=`message size is larger than configured readMaxBytes ${e}`;throw u&&(t=`message size ${n} is larger than configured readMaxBytes ${e}`),new T(t,v.ResourceExhausted)}}function wa(e){return new yu(e)}var yu=class{constructor(n){this.readMaxBytes=n,this.header=new Uint8Array(5),this.headerView=new DataView(this.header.buffer),this.buf=[]}get byteLength(){return this.buf.reduce((n,u)=>n+u.byteLength,0)}decode(n){this.buf.push(n);let u=[];for(;;){let t=this.pop();if(!t)break;u.push(t)}return u}pop(){if(!(!this.env&&(this.env=this.head(),!this.env))&&this.cons(this.env.data)){let n=this.env;return this.env=void 0,n}}head(){if(!this.cons(this.header))return;let n=this.headerView.getUint8(0),u=this.headerView.getUint32(1);return mr(this.readMaxBytes,u,!0),{flags:n,data:new Uint8Array(u)}}cons(n){let u=n.byteLength;if(this.byteLength<u)return!1;let t=0;for(;t<u;){let o=this.buf.shift();o.byteLength>u-t?(n.set(o.subarray(0,u-t),t),this.buf.unshift(o.subarray(u-t)),t+=u-t):(n.set(o,t),t+=o.byteLength)}return!0}};function Eu(e){let n,u=wa(4294967295);return new ReadableStream({start(){n=e.getReader()},async pull(t){let o=!1;for(;!o;){let r=await n.read();if(r.done)u.byteLength>0&&t.error(new T("protocol error: incomplete envelope",v.InvalidArgument)),t.close();else for(let i of u.decode(r.value))t.enqueue(i),o=!0}}})}function Ru(e,n){let u=new Uint8Array(n.length+5);u.set(n,5);let t=new DataView(u.buffer,u.byteOffset,u.byteLength);return t.setUint8(0,e),t.setUint32(1,n.length),u}var Oa=function(e){if(!Symbol.asyncIterator)throw new TypeError("Symbol.asyncIterator is not defined.");var n=e[Symbol.asyncIterator],u;return n?n.call(e):(e=typeof __values=="function"?__values(e):e[Symbol.iterator](),u={},t("next"),t("throw"),t("return"),u[Symbol.asyncIterator]=function(){return this},u);function t(r){u[r]=e[r]&&function(i){return new Promise(function(s,a){i=e[r](i),o(s,a,i.done,i.value)})}}function o(r,i,s,a){Promise.resolve(a).then(function(c){r({value:c,done:s})},i)}},ae=function(e){return this instanceof ae?(this.v=e,this):new ae(e)},Da=function(e,n,u){if(!Symbol.asyncIterator)throw new TypeError("Symbol.asyncIterator is not defined.");var t=u.apply(e,n||[]),o,r=[];return o=Object.create((typeof AsyncIterator=="function"?AsyncIterator:Object).prototype),s("next"),s("throw"),s("return",i),o[Symbol.asyncIterator]=function(){return this},o;function i(p){return function(m){return Promise.resolve(m).then(p,d)}}function s(p,m){t[p]&&(o[p]=function(h){return new Promise(function(b,g){r.push([p,h,b,g])>1||a(p,h)})},m&&(o[p]=m(o[p])))}function a(p,m){try{c(t[p](m))}catch(h){_(r[0][3],h)}}function c(p){p.value instanceof ae?Promise.resolve(p.value.v).then(l,d):_(r[0][2],p)}function l(p){a("next",p)}function d(p){a("throw",p)}function _(p,m){p(m),r.shift(),r.length&&a(r[0][0],r[0][1])}},Aa=function(e){var n,u;return n={},t("next"),t("throw",function(o){throw o}),t("return"),n[Symbol.iterator]=function(){return this},n;function t(o,r){n[o]=e[o]?function(i){return(u=!u)?{value:ae(e[o](i)),done:!1}:r?r(i):i}:r}};function dr(e){return Da(this,arguments,function*(){yield ae(yield*Aa(Oa(e)))})}var _r=function(e){if(!Symbol.asyncIterator)throw new TypeError("Symbol.asyncIterator is not defined.");var n=e[Symbol.asyncIterator],u;return n?n.call(e):(e=typeof __values=="function"?__values(e):e[Symbol.iterator](),u={},t("next"),t("throw"),t("return"),u[Symbol.asyncIterator]=function(){return this},u);function t(r){u[r]=e[r]&&function(i){return new Promise(function(s,a){i=e[r](i),o(s,a,i.done,i.value)})}}function o(r,i,s,a){Promise.resolve(a).then(function(c){r({value:c,done:s})},i)}},G0=function(e){return this instanceof G0?(this.v=e,this):new G0(e)},La=function(e){var n,u;return n={},t("next"),t("throw",function(o){throw o}),t("return"),n[Symbol.iterator]=function(){return this},n;function t(o,r){n[o]=e[o]?function(i){return(u=!u)?{value:G0(e[o](i)),done:!1}:r?r(i):i}:r}},ka=function(e,n,u){if(!Symbol.asyncIterator)throw new TypeError("Symbol.asyncIterator is not defined.");var t=u.apply(e,n||[]),o,r=[];return o=Object.create((typeof AsyncIterator=="function"?AsyncIterator:Object).prototype),s("next"),s("throw"),s("return",i),o[Symbol.asyncIterator]=function(){return this},o;function i(p){return function(m){return Promise.resolve(m).then(p,d)}}function s(p,m){t[p]&&(o[p]=function(h){return new Promise(function(b,g){r.push([p,h,b,g])>1||a(p,h)})},m&&(o[p]=m(o[p])))}function a(p,m){try{c(t[p](m))}catch(h){_(r[0][3],h)}}function c(p){p.value instanceof G0?Promise.resolve(p.value.v).then(l,d):_(r[0][2],p)}function l(p){a("next",p)}function d(p){a("throw",p)}function _(p,m){p(m),r.shift(),r.length&&a(r[0][0],r[0][1])}};function Q(e,n){return fr(e,u=>{switch(u.methodKind){case"unary":return Ua(n,u);case"server_streaming":return Ca(n,u);case"client_streaming":return Pa(n,u);case"bidi_streaming":return Fa(n,u);default:return null}})}function Ua(e,n){return async(u,t)=>{var o,r;let i=await e.unary(n,t?.signal,t?.timeoutMs,t?.headers,u,t?.contextValues);return(o=t?.onHeader)===null||o===void 0||o.call(t,i.header),(r=t?.onTrailer)===null||r===void 0||r.call(t,i.trailer),i.message}}function Ca(e,n){return(u,t)=>br(e.stream(n,t?.signal,t?.timeoutMs,t?.headers,dr([u]),t?.contextValues),t)}function Pa(e,n){return async(u,t)=>{var o,r,i,s,a,c;let l=await e.stream(n,t?.signal,t?.timeoutMs,t?.headers,u,t?.contextValues);(a=t?.onHeader)===null||a===void 0||a.call(t,l.header);let d,_=0;try{for(var p=!0,m=_r(l.message),h;h=await m.next(),o=h.done,!o;p=!0)s=h.value,p=!1,d=s,_++}catch(b){r={error:b}}finally{try{!p&&!o&&(i=m.return)&&await i.call(m)}finally{if(r)throw r.error}}if(!d)throw new T("protocol error: missing response message",v.Unimplemented);if(_>1)throw new T("protocol error: received extra messages for client streaming method",v.Unimplemented);return(c=t?.onTrailer)===null||c===void 0||c.call(t,l.trailer),d}}function Fa(e,n){return(u,t)=>br(e.stream(n,t?.signal,t?.timeoutMs,t?.headers,u,t?.contextValues),t)}function br(e,n){let u=(function(){return ka(this,arguments,function*(){var t,o;let r=yield G0(e);(t=n?.onHeader)===null||t===void 0||t.call(n,r.header),yield G0(yield*La(_r(r.message))),(o=n?.onTrailer)===null||o===void 0||o.call(n,r.trailer)})})()[Symbol.asyncIterator]();return{[Symbol.asyncIterator]:()=>({next:()=>u.next()})}}function hr(...e){let n=new AbortController,u=e.filter(o=>o!==void 0).concat(n.signal);for(let o of u){if(o.aborted){t.apply(o);break}o.addEventListener("abort",t)}function t(){n.signal.aborted||n.abort(Qe(this));for(let o of u)o.removeEventListener("abort",t)}return n}function gr(e){let n=new AbortController,u=()=>{n.abort(new T("the operation timed out",v.DeadlineExceeded))},t;return e!==void 0&&(e<=0?u():t=setTimeout(u,e)),{signal:n.signal,cleanup:()=>clearTimeout(t)}}function Qe(e){if(!e.aborted)return;if(e.reason!==void 0)return e.reason;let n=new Error("This operation was aborted");return n.name="AbortError",n}function Ze(){return{get(e){return e.id in this?this[e.id]:e.defaultValue},set(e,n){return this[e.id]=n,this},delete(e){return delete this[e.id],this}}}function G(e,n,...u){if(u.length>0)throw new Error;return e.services[n]}var E0="Content-Type",vr="Content-Length",ce="Content-Encoding";var Nu="Accept-Encoding";var Sr="Connect-Timeout-Ms",en="Connect-Protocol-Version";var Tu="User-Agent";function nn(e,n){return e.toString().replace(/\/?$/,`/${n.parent.typeName}/${n.name}`)}function xu(e,n){return k(e,n)}function yr(e,n){function u(t){return t.done===!0?t:{done:t.done,value:xu(e,t.value)}}return{[Symbol.asyncIterator](){let t=n[Symbol.asyncIterator](),o={next:()=>t.next().then(u)};return t.throw!==void 0&&(o.throw=r=>t.throw(r).then(u)),t.return!==void 0&&(o.return=r=>t.return(r).then(u)),o}}}function Iu(e,n){if(!n)return e;for(let u of n.concat().reverse())e=u(e);return e}function un(e){var n;let u=Object.assign({},e);return(n=u.ignoreUnknownFields)!==null&&n!==void 0||(u.ignoreUnknownFields=!0),u}function tn(e,n,u,t){let o=n?Er(e.input,t):Rr(e.input,u);return{parse:(n?Er(e.output,t):Rr(e.output,u)).parse,serialize:o.serialize}}function Er(e,n){return{parse(u){try{return l0(e,u,n)}catch(t){let o=t instanceof Error?t.message:String(t);throw new T(`parse binary: ${o}`,v.Internal)}},serialize(u){try{return re(e,u,n)}catch(t){let o=t instanceof Error?t.message:String(t);throw new T(`serialize binary: ${o}`,v.Internal)}}}}function Rr(e,n){var u,t;let o=(u=n?.textEncoder)!==null&&u!==void 0?u:new TextEncoder,r=(t=n?.textDecoder)!==null&&t!==void 0?t:new TextDecoder,i=un(n);return{parse(s){try{let a=r.decode(s);return rr(e,a,i)}catch(a){throw T.from(a,v.InvalidArgument)}},serialize(s){try{let a=Qo(e,s,i);return o.encode(a)}catch(a){throw T.from(a,v.Internal)}}}}var Ma=/^application\/(connect\+)?(?:(json)(?:; ?charset=utf-?8)?|(proto))$/i;var Nr="application/proto",Tr="application/json",xr="application/connect+proto",Ir="application/connect+json";function wr(e){let n=e?.match(Ma);if(!n)return;let u=!!n[1],t=!!n[3];return{stream:u,binary:t}}function pe(e,n,u){var t;if(n&&new Headers(n).forEach((s,a)=>u.metadata.append(a,s)),typeof e!="object"||e==null||Array.isArray(e))throw u;let o=u.code;"code"in e&&typeof e.code=="string"&&(o=(t=lr(e.code))!==null&&t!==void 0?t:o);let r=e.message;if(r!=null&&typeof r!="string")throw u;let i=new T(r??"",o,n);if(i.isWireError=!0,"details"in e&&Array.isArray(e.details))for(let s of e.details){if(s===null||typeof s!="object"||Array.isArray(s)||typeof s.type!="string"||typeof s.value!="string")throw u;try{i.details.push({type:s.type,value:A0(s.value),debug:s.debug})}catch{throw u}}return i}var on=2;function wu(e){let n=new T("invalid end stream",v.Unknown),u;try{u=JSON.parse(typeof e=="string"?e:new TextDecoder().decode(e))}catch{throw n}if(typeof u!="object"||u==null||Array.isArray(u))throw n;let t=new Headers;if("metadata"in u){if(typeof u.metadata!="object"||u.metadata==null||Array.isArray(u.metadata))throw n;for(let[r,i]of Object.entries(u.metadata)){if(!Array.isArray(i)||i.some(s=>typeof s!="string"))throw n;for(let s of i)t.append(r,s)}}let o="error"in u&&u.error!=null?pe(u.error,t,n):void 0;return{metadata:t,error:o}}function Or(e){switch(e){case 400:return v.Internal;case 401:return v.Unauthenticated;case 403:return v.PermissionDenied;case 404:return v.Unimplemented;case 429:return v.Unavailable;case 502:return v.Unavailable;case 503:return v.Unavailable;case 504:return v.Unavailable;default:return v.Unknown}}function rn(e){let n=new Headers,u=new Headers;return e.forEach((t,o)=>{o.toLowerCase().startsWith("trailer-")?u.append(o.substring(8),t):n.append(o,t)}),[n,u]}var sn="1";function an(e,n,u,t,o){let r=new Headers(t??{});return u!==void 0&&r.set(Sr,`${u}`),r.set(E0,e=="unary"?n?Nr:Tr:n?xr:Ir),r.set(en,sn),!r.has(Tu)&&o&&r.set(Tu,"connect-es/2.2.0"),r}function cn(e,n,u,t){let o=t.get(E0),r=wr(o);if(u!==200){let s=new T(`HTTP ${u}`,Or(u),t);if(e=="unary"&&r&&!r.binary)return{isUnaryError:!0,unaryError:s};throw s}let i={binary:n,stream:e!=="unary"};if(r?.binary!==i.binary||r.stream!==i.stream)throw new T(`unsupported content type ${o}`,r===void 0?v.Unknown:v.Internal,t);return{isUnaryError:!1}}var Dr="application/";function Va(e,n){return n?j0(e,"url"):encodeURIComponent(new TextDecoder().decode(e))}function Ou(e,n,u){let t=`?connect=v${sn}`,o="",r=e.header.get(ce);r!==null&&r!=="identity"&&(o="&compression="+encodeURIComponent(r),u=!0),u&&(t+="&base64=1"),t+=o;let i=e.header.get(E0);i?.indexOf(Dr)===0&&(t+="&encoding="+encodeURIComponent(i.slice(Dr.length))),t+="&message="+Va(n,u);let s=e.url+t,a=new Headers(e.header);for(let c of[en,E0,vr,ce,Nu])a.delete(c);return Object.assign(Object.assign({},e),{requestMethod:"GET",url:s,header:a})}function Du(e){let n=Iu(e.next,e.interceptors),[u,t,o]=Ar(e),r=Object.assign(Object.assign({},e.req),{message:xu(e.req.method.input,e.req.message),signal:u});return n(r).then(i=>(o(),i),t)}function Au(e){let n=Iu(e.next,e.interceptors),[u,t,o]=Ar(e),r=Object.assign(Object.assign({},e.req),{message:yr(e.req.method.input,e.req.message),signal:u}),i=!1;return u.addEventListener("abort",function(){var s,a;let c=e.req.message[Symbol.asyncIterator]();i||(s=c.throw)===null||s===void 0||s.call(c,this.reason).catch(()=>{}),(a=c.return)===null||a===void 0||a.call(c).catch(()=>{})}),n(r).then(s=>Object.assign(Object.assign({},s),{message:{[Symbol.asyncIterator](){let a=s.message[Symbol.asyncIterator]();return{next(){return!i&&u.aborted?t(Qe(u)):a.next().then(c=>(c.done==!0&&(i=!0,o()),c),t)}}}}}),t)}function Ar(e){let{signal:n,cleanup:u}=gr(e.timeoutMs),t=hr(e.signal,n);return[t.signal,function(r){let i=t.signal.aborted?T.from(Qe(t.signal),v.Canceled):T.from(r);return t.abort(i),u(),Promise.reject(i)},function(){u(),t.abort()}]}var $a=Symbol.for("preact-signals");function mn(){if(m0>1)m0--;else{var e,n=!1;for((function(){var o=ln;for(ln=void 0;o!==void 0;){var r=o.S;if(r.v===o.v)for(var i=r.t;i!==void 0;i=i.x)i.i===o.i&&(i.i=r.i);o=o.o}})();fe!==void 0;){var u=fe;for(fe=void 0,pn++;u!==void 0;){var t=u.u;if(u.u=void 0,u.f&=-3,!(8&u.f)&&kr(u))try{u.c()}catch(o){n||(e=o,n=!0)}u=t}}if(pn=0,m0--,n)throw e}}function ku(e){if(m0>0)return e();Lu=++Ba,m0++;try{return e()}finally{mn()}}var le,L=void 0;function me(e){var n=L,u=le;L=void 0,le=void 0;try{return e()}finally{L=n,le=u}}var fe=void 0,m0=0,pn=0,Ba=0,Lu=0,ln=void 0,fn=0;function Lr(e){if(L!==void 0){var n=e.n;if(n===void 0||n.t!==L)return n={i:0,S:e,p:L.s,n:void 0,t:L,e:void 0,x:void 0,r:n},L.s!==void 0&&(L.s.n=n),L.s=n,e.n=n,32&L.f&&e.S(n),n;if(n.i===-1)return n.i=0,n.n!==void 0&&(n.n.p=n.p,n.p!==void 0&&(n.p.n=n.n),n.p=L.s,n.n=void 0,L.s.n=n,L.s=n),n}}function W(e,n){this.v=e,this.i=0,this.n=void 0,this.t=void 0,this.l=0,this.W=n?.watched,this.Z=n?.unwatched,this.name=n?.name}W.prototype.brand=$a;W.prototype.h=function(){return!0};W.prototype.S=function(e){var n=this,u=this.t;u!==e&&e.e===void 0&&(e.x=u,this.t=e,u!==void 0?u.e=e:me(function(){var t;(t=n.W)==null||t.call(n)}))};W.prototype.U=function(e){var n=this;if(this.t!==void 0){var u=e.e,t=e.x;u!==void 0&&(u.x=t,e.e=void 0),t!==void 0&&(t.e=u,e.x=void 0),e===this.t&&(this.t=t,t===void 0&&me(function(){var o;(o=n.Z)==null||o.call(n)}))}};W.prototype.subscribe=function(e){var n=this;return N0(function(){var u=n.value;me(function(){return e(u)})},{name:"sub"})};W.prototype.valueOf=function(){return this.value};W.prototype.toString=function(){return this.value+""};W.prototype.toJSON=function(){return this.value};W.prototype.peek=function(){var e=this;return me(function(){return e.value})};Object.defineProperty(W.prototype,"value",{get:function(){var e=Lr(this);return e!==void 0&&(e.i=this.i),this.v},set:function(e){if(e!==this.v){if(pn>100)throw new Error("Cycle detected");(function(u){m0!==0&&pn===0&&u.l!==Lu&&(u.l=Lu,ln={S:u,v:u.v,i:u.i,o:ln})})(this),this.v=e,this.i++,fn++,m0++;try{for(var n=this.t;n!==void 0;n=n.x)n.t.N()}finally{mn()}}}});function u0(e,n){return new W(e,n)}function kr(e){for(var n=e.s;n!==void 0;n=n.n)if(n.S.i!==n.i||!n.S.h()||n.S.i!==n.i)return!0;return!1}function Ur(e){for(var n=e.s;n!==void 0;n=n.n){var u=n.S.n;if(u!==void 0&&(n.r=u),n.S.n=n,n.i=-1,n.n===void 0){e.s=n;break}}}function Cr(e){for(var n=e.s,u=void 0;n!==void 0;){var t=n.p;n.i===-1?(n.S.U(n),t!==void 0&&(t.n=n.n),n.n!==void 0&&(n.n.p=t)):u=n,n.S.n=n.r,n.r!==void 0&&(n.r=void 0),n=t}e.s=u}function R0(e,n){W.call(this,void 0,n),this.x=e,this.s=void 0,this.g=fn-1,this.f=4}R0.prototype=new W;R0.prototype.h=function(){if(this.f&=-3,1&this.f)return!1;if((36&this.f)==32||(this.f&=-5,this.g===fn))return!0;if(this.g=fn,this.f|=1,this.i>0&&!kr(this))return this.f&=-2,!0;var e=L;try{Ur(this),L=this;var n=this.x();(16&this.f||this.v!==n||this.i===0)&&(this.v=n,this.f&=-17,this.i++)}catch(u){this.v=u,this.f|=16,this.i++}return L=e,Cr(this),this.f&=-2,!0};R0.prototype.S=function(e){if(this.t===void 0){this.f|=36;for(var n=this.s;n!==void 0;n=n.n)n.S.S(n)}W.prototype.S.call(this,e)};R0.prototype.U=function(e){if(this.t!==void 0&&(W.prototype.U.call(this,e),this.t===void 0)){this.f&=-33;for(var n=this.s;n!==void 0;n=n.n)n.S.U(n)}};R0.prototype.N=function(){if(!(2&this.f)){this.f|=6;for(var e=this.t;e!==void 0;e=e.x)e.t.N()}};Object.defineProperty(R0.prototype,"value",{get:function(){if(1&this.f)throw new Error("Cycle detected");var e=Lr(this);if(this.h(),e!==void 0&&(e.i=this.i),16&this.f)throw this.v;return this.v}});function dn(e,n){return new R0(e,n)}function Pr(e){var n=e.j;if(e.j=void 0,typeof n=="function"){m0++;var u=L;L=void 0;try{n()}catch(t){throw e.f&=-2,e.f|=8,Uu(e),t}finally{L=u,mn()}}}function Uu(e){for(var n=e.s;n!==void 0;n=n.n)n.S.U(n);e.x=void 0,e.s=void 0,Pr(e)}function qa(e){if(L!==this)throw new Error("Out-of-order effect");Cr(this),L=e,this.f&=-2;try{8&this.f&&Uu(this)}finally{mn()}}function W0(e,n){this.x=e,this.j=void 0,this.s=void 0,this.u=void 0,this.f=32,this.name=n?.name,le&&le.push(this)}W0.prototype.c=function(){var e=this.S();try{if(8&this.f||this.x===void 0)return;var n=this.x();typeof n=="function"&&(this.j=n)}finally{e()}};W0.prototype.S=function(){if(1&this.f)throw new Error("Cycle detected");this.f|=1,this.f&=-9,Pr(this),Ur(this),m0++;var e=L;return L=this,qa.bind(this,e)};W0.prototype.N=function(){2&this.f||(this.f|=2,this.u=fe,fe=this)};W0.prototype.d=function(){this.f|=8,1&this.f||Uu(this)};W0.prototype.dispose=function(){this.d()};function N0(e,n){var u=new W0(e,n);try{u.c()}catch(o){throw u.d(),o}var t=u.d.bind(u);return t[Symbol.dispose]=t,t}var Fr,bn,_n,Ha=typeof window<"u"&&!!window.__PREACT_SIGNALS_DEVTOOLS__;var Mr=[];N0(function(){Fr=this.N})();function V0(e,n){I[e]=n.bind(null,I[e]||function(){})}function de(e){if(_n){var n=_n;_n=void 0,n()}_n=e&&e.S()}function Gr(e){var n=this,u=e.data,t=Ya(u);t.name="ReactiveDom",t.value=u;var o=Te(function(){for(var s=n,a=n.__v;a=a.__;)if(a.__c){a.__c.__$f|=4;break}var c=dn(function(){var p=t.value.value;return p===0?0:p===!0?"":p||""}),l=dn(function(){return!Array.isArray(c.value)&&!yn(c.value)}),d=N0(function(){if(this.N=Wr,l.value){var p=c.value;s.__v&&s.__v.__e&&s.__v.__e.nodeType===3&&(s.__v.__e.data=p)}}),_=n.__$u.d;return n.__$u.d=function(){d(),_.call(this)},[l,c]},[]),r=o[0],i=o[1];return r.value?i.peek():i.value}Gr.displayName="ReactiveTextNode";Object.defineProperties(W.prototype,{constructor:{configurable:!0,value:Ku(a0,null).constructor},type:{configurable:!0,value:Gr},props:{configurable:!0,get:function(){var e=this;return{data:{get value(){return e.value}}}}},__b:{configurable:!0,value:1}});V0("__b",function(e,n){if(de(),bn=void 0,typeof n.type=="string"){var u,t=n.props;for(var o in t)if(o!=="children"){var r=t[o];r instanceof W&&(u||(n.__np=u={}),u[o]=r,t[o]=r.peek())}}e(n)});V0("__r",function(e,n){if(e(n),n.type!==a0){de();var u,t=n.__c;t&&(t.__$f&=-2,(u=t.__$u)===void 0&&(t.__$u=u=(function(o,r){var i;return N0(function(){i=this},{name:r}),i.c=o,i})((function(o){return function(){var r;Ha&&((r=this.y)==null||r.call(this)),o.__$f|=1,o.setState({})}})(t),typeof n.type=="function"?n.type.displayName||n.type.name:""))),bn=t,de(u)}});V0("__e",function(e,n,u,t){de(),bn=void 0,e(n,u,t)});V0("diffed",function(e,n){de(),bn=void 0;var u;if(typeof n.type=="string"&&(u=n.__e)){var t=n.__np,o=n.props,r=u.U;if(r)for(var i in r){var s=r[i];s===void 0||t&&i in t||(s.d(),r[i]=void 0)}if(t){r||(r={},u.U=r);for(var a in t){var c=r[a],l=t[a];c===void 0?(c=Ka(u,a,l,o),r[a]=c):c.o(l,o)}}}e(n)});function Ka(e,n,u,t){var o=n in e&&e.ownerSVGElement===void 0,r=u0(u);return{o:function(i,s){r.value=i,t=s},d:N0(function(){this.N=Wr;var i=r.value.value;t[n]!==i&&(t[n]=i,o?e[n]=i:i!=null&&(i!==!1||n[4]==="-")?e.setAttribute(n,i):e.removeAttribute(n))})}}V0("unmount",function(e,n){if(typeof n.type=="string"){var u=n.__e;if(u){var t=u.U;if(t){u.U=void 0;for(var o in t){var r=t[o];r&&r.d()}}}var i=n.__np;if(i){var s=n.props;for(var a in i)s[a]=i[a]}n.__np=void 0}else{var c=n.__c;if(c){c.__$f|=8;var l=c.__$u;l&&(c.__$u=void 0,l.d())}}e(n)});V0("__h",function(e,n,u,t){t<3&&(n.__$f|=2),e(n,u,t)});w0.prototype.shouldComponentUpdate=function(e,n){if(this.__R)return!0;var u=this.__$u,t=u&&u.s!==void 0;for(var o in n)return!0;if(this.__f||typeof this.u=="boolean"&&this.u===!0){var r=2&this.__$f;if(!(t||r||4&this.__$f)||1&this.__$f)return!0}else if(!(t||4&this.__$f)||3&this.__$f)return!0;for(var i in e)if(i!=="__source"&&e[i]!==this.props[i])return!0;for(var s in this.props)if(!(s in e))return!0;return!1};function Ya(e,n){return Te(function(){return u0(e,n)},[])}var ja=function(e){queueMicrotask(function(){queueMicrotask(e)})};function Ja(){ku(function(){for(var e;e=Mr.shift();)Fr.call(e)})}function Wr(){Mr.push(this)===1&&(I.requestAnimationFrame||ja)(Ja)}var C=x("ChtidWYvdmFsaWRhdGUvdmFsaWRhdGUucHJvdG9iBnByb3RvMg==");var T0=x(btoa(`
pinion/v1/agent.proto	pinion.v1"ë
\rAgentSettings
\bidentity (	\r
model (	)
\vmcp_servers (\v2.pinion.v1.McpServer\x1B
installed_providers (	.
\regress_config (\v2.pinion.v1.EgressConfig
pre_approved_tools (	

guardrails\x07 (	
	workspace\b (	";
	McpServer\f
name (	\v
url (	
\vis_injected (\b"%
\fEgressConfig
\rallowed_hosts (	"f
\rAgentSnapshot

id (	\f
name (	
\x07version (*
\bsettings (\v2.pinion.v1.AgentSettings"
Agent

id (	\f
name (	
\bowner_id (	
\x07version (*
\bsettings (\v2.pinion.v1.AgentSettings

is_default (\b.

created_at\x07 (\v2.google.protobuf.Timestamp.

updated_at\b (\v2.google.protobuf.Timestamp
	device_id	 (	
no_executor_reason
 (	"
CreateAgentRequest
\bagent_id (	\f
name (	*
\bsettings (\v2.pinion.v1.AgentSettings
\bowner_id (	
\x07dry_run (\b"G
CreateAgentResponse
agent (\v2.pinion.v1.Agent
\x07created (\b"#
GetAgentRequest
\bagent_id (	"3
GetAgentResponse
agent (\v2.pinion.v1.Agent":
ListAgentsRequest
	page_size (

page_token (	"O
ListAgentsResponse 
agents (\v2.pinion.v1.Agent
next_page_token (	"Ä
UpdateAgentSettingsRequest
\bagent_id (	*
\bsettings (\v2.pinion.v1.AgentSettings/
\vupdate_mask (\v2.google.protobuf.FieldMask
expected_version (
name (	H\0
\bowner_id (	H

is_default\x07 (\bH
\x07dry_run\b (\b
	device_id	 (	HB\x07
_nameB\v
	_owner_idB\r
\v_is_defaultB\f

_device_id"V
\x1BUpdateAgentSettingsResponse
agent (\v2.pinion.v1.Agent
changed_fields (	"&
DeleteAgentRequest
\bagent_id (	"
DeleteAgentResponse"ç
\rAgentPlatform
	stable_id (	
\bagent_id (	\f
kind (	4
config (\v2$.pinion.v1.AgentPlatform.ConfigEntry*
\x07secrets (\v2.pinion.v1.PlatformSecret)
status (2.pinion.v1.PlatformStatus
\rstatus_reason\x07 (	
\x07version\b (.

created_at	 (\v2.google.protobuf.Timestamp.

updated_at
 (\v2.google.protobuf.Timestamp6
last_message_in_at\v (\v2.google.protobuf.Timestamp7
last_message_out_at\f (\v2.google.protobuf.Timestamp

last_error\r (	1
\rlast_error_at (\v2.google.protobuf.Timestamp

replica_id (	
\vwebhook_url (	-
\vConfigEntry\v
key (	\r
value (	:8"1
PlatformSecret\f
name (	
	reference (	"6
\vSecretValue
value (	H\0
keep (\bH\0B
kind"ê
UpsertPlatformRequest
	stable_id (	
\bagent_id (	\f
kind (	<
config (\v2,.pinion.v1.UpsertPlatformRequest.ConfigEntry>
\x07secrets (\v2-.pinion.v1.UpsertPlatformRequest.SecretsEntry
expected_version (
\x07dry_run\x07 (\b-
\vConfigEntry\v
key (	\r
value (	:8F
\fSecretsEntry\v
key (	%
value (\v2.pinion.v1.SecretValue:8"
UpsertPlatformResponse*
\bplatform (\v2.pinion.v1.AgentPlatform)
\x07outcome (2.pinion.v1.UpsertOutcome
\fwill_restart (\b
changed_fields (	"R
\x1BBatchUpsertPlatformsRequest3
	platforms (\v2 .pinion.v1.UpsertPlatformRequest"V
BatchUpsertPlatformsResponse6
\x07results (\v2%.pinion.v1.BatchUpsertPlatformsResult"
BatchUpsertPlatformsResult1
done (\v2!.pinion.v1.UpsertPlatformResponseH\03
\x07refused (\v2 .pinion.v1.UpsertPlatformRefusalH\0B
kind"E
UpsertPlatformRefusal\f
code (
\x07message (	\r
field (	"O
ListPlatformsRequest
	page_size (

page_token (	
\bagent_id (	"]
ListPlatformsResponse+
	platforms (\v2.pinion.v1.AgentPlatform
next_page_token (	"*
DeletePlatformRequest
	stable_id (	"
DeletePlatformResponse")
StartPlatformRequest
	stable_id (	"C
StartPlatformResponse*
\bplatform (\v2.pinion.v1.AgentPlatform"(
StopPlatformRequest
	stable_id (	"B
StopPlatformResponse*
\bplatform (\v2.pinion.v1.AgentPlatform"-
ListAgentRevisionsRequest
\bagent_id (	"
\rAgentRevision
\x07version (\f
name (	*
\bsettings (\v2.pinion.v1.AgentSettings.

created_at (\v2.google.protobuf.Timestamp"I
ListAgentRevisionsResponse+
	revisions (\v2.pinion.v1.AgentRevision*¥
PlatformStatus
\x1BPLATFORM_STATUS_UNSPECIFIED\0\x1B
PLATFORM_STATUS_STOPPED
PLATFORM_STATUS_STARTING\x1B
PLATFORM_STATUS_RUNNING
PLATFORM_STATUS_FAILED*
\rUpsertOutcome
UPSERT_OUTCOME_UNSPECIFIED\0
UPSERT_OUTCOME_CREATED
UPSERT_OUTCOME_UPDATED
UPSERT_OUTCOME_NOOP2§\b
\fAgentServiceL
\vCreateAgent.pinion.v1.CreateAgentRequest.pinion.v1.CreateAgentResponseH
\bGetAgent.pinion.v1.GetAgentRequest\x1B.pinion.v1.GetAgentResponse"N

ListAgents.pinion.v1.ListAgentsRequest.pinion.v1.ListAgentsResponse"f
ListAgentRevisions$.pinion.v1.ListAgentRevisionsRequest%.pinion.v1.ListAgentRevisionsResponse"d
UpdateAgentSettings%.pinion.v1.UpdateAgentSettingsRequest&.pinion.v1.UpdateAgentSettingsResponseL
\vDeleteAgent.pinion.v1.DeleteAgentRequest.pinion.v1.DeleteAgentResponseU
UpsertPlatform .pinion.v1.UpsertPlatformRequest!.pinion.v1.UpsertPlatformResponseg
BatchUpsertPlatforms&.pinion.v1.BatchUpsertPlatformsRequest'.pinion.v1.BatchUpsertPlatformsResponseW
\rListPlatforms.pinion.v1.ListPlatformsRequest .pinion.v1.ListPlatformsResponse"U
DeletePlatform .pinion.v1.DeletePlatformRequest!.pinion.v1.DeletePlatformResponseR
\rStartPlatform.pinion.v1.StartPlatformRequest .pinion.v1.StartPlatformResponseO
\fStopPlatform.pinion.v1.StopPlatformRequest.pinion.v1.StopPlatformResponsebproto3`),[C,U0,U]),Wm=A(T0,0);var Xa=y(T0,0),Vm=E(Xa);var Vr=G(T0,0);var _e=x(btoa(`
\x1Bpinion/v1/destination.proto	pinion.v1"9
Notify

to (	#
when (2.pinion.v1.NotifyWhen"
DestinationSpec\f
name (	0
\x07webhook (\v2.pinion.v1.WebhookDestinationH\0,
slack (\v2\x1B.pinion.v1.SlackDestinationH\0,
email (\v2\x1B.pinion.v1.EmailDestinationH\02
\bplatform (\v2.pinion.v1.PlatformDestinationH\0
\ftakes_alerts (\bHB
kindB
\r_takes_alerts"Q
WebhookDestination\v
url (	.
signing_secret (\v2.pinion.v1.SecretValue"
SlackDestination-
\vwebhook_url (\v2.pinion.v1.SecretValueH\0+
	bot_token (\v2.pinion.v1.SecretValueH\0
\x07channel (	
\x07api_url (	B\b
access"8
PlatformDestination
\vplatform_id (	\f
chat (	"V
EmailDestination

to (	(
\bsmtp_url (\v2.pinion.v1.SecretValue\f
from (	"Â
\vDestination

id (	\f
slug (	(
spec (\v2.pinion.v1.DestinationSpec
\x07version (.

created_at (\v2.google.protobuf.Timestamp.

updated_at (\v2.google.protobuf.Timestamp5
last_delivered_at\x07 (\v2.google.protobuf.Timestamp
pending_deliveries\b (
dead_deliveries	 (

last_error
 (	"c
CreateDestinationRequest\f
slug (	(
spec (\v2.pinion.v1.DestinationSpec
\x07dry_run (\b"\`
CreateDestinationResponse+
\vdestination (\v2.pinion.v1.Destination
signing_secret (	"/
GetDestinationRequest
destination_id (	"E
GetDestinationResponse+
\vdestination (\v2.pinion.v1.Destination"@
ListDestinationsRequest
	page_size (

page_token (	"a
ListDestinationsResponse,
\fdestinations (\v2.pinion.v1.Destination
next_page_token (	"
UpdateDestinationRequest
destination_id (	(
spec (\v2.pinion.v1.DestinationSpec
expected_version (
\x07dry_run (\b"H
UpdateDestinationResponse+
\vdestination (\v2.pinion.v1.Destination"2
DeleteDestinationRequest
destination_id (	"\x1B
DeleteDestinationResponse"d
RotateDestinationSecretRequest
destination_id (	*
\x07overlap (\v2.google.protobuf.Duration"f
RotateDestinationSecretResponse+
\vdestination (\v2.pinion.v1.Destination
signing_secret (	"0
TestDestinationRequest
destination_id (	"@
TestDestinationResponse%
\bdelivery (\v2.pinion.v1.Delivery"¬
\bDelivery

id (	
destination_id (	
destination_slug (	

watcher_id (	
\fwatcher_slug (	
run_id (	\f
kind\x07 (	#
when\b (2.pinion.v1.NotifyWhen'
state	 (2.pinion.v1.DeliveryState
\battempts
 (
\vlast_status\v (

last_error\f (	.

created_at\r (\v2.google.protobuf.Timestamp3
next_attempt_at (\v2.google.protobuf.Timestamp,
\bended_at (\v2.google.protobuf.Timestamp"
ListDeliveriesRequest
	page_size (

page_token (	
destination_id (	'
state (2.pinion.v1.DeliveryState
run_id (	"Z
ListDeliveriesResponse'

deliveries (\v2.pinion.v1.Delivery
next_page_token (	"G
ReplayDeliveriesRequest
destination_id (	
\fdelivery_ids (	",
ReplayDeliveriesResponse
\breplayed (*Á

NotifyWhen\x1B
NOTIFY_WHEN_UNSPECIFIED\0
NOTIFY_WHEN_ALWAYS
NOTIFY_WHEN_FAILURE
NOTIFY_WHEN_RECOVERY
NOTIFY_WHEN_CHANGE
NOTIFY_WHEN_ATTENTION
NOTIFY_WHEN_QUESTION*
\rDeliveryState
DELIVERY_STATE_UNSPECIFIED\0
DELIVERY_STATE_PENDING
DELIVERY_STATE_DELIVERED
DELIVERY_STATE_DEAD2÷
DestinationService^
CreateDestination#.pinion.v1.CreateDestinationRequest$.pinion.v1.CreateDestinationResponseZ
GetDestination .pinion.v1.GetDestinationRequest!.pinion.v1.GetDestinationResponse"\`
ListDestinations".pinion.v1.ListDestinationsRequest#.pinion.v1.ListDestinationsResponse"^
UpdateDestination#.pinion.v1.UpdateDestinationRequest$.pinion.v1.UpdateDestinationResponse^
DeleteDestination#.pinion.v1.DeleteDestinationRequest$.pinion.v1.DeleteDestinationResponsep
RotateDestinationSecret).pinion.v1.RotateDestinationSecretRequest*.pinion.v1.RotateDestinationSecretResponseX
TestDestination!.pinion.v1.TestDestinationRequest".pinion.v1.TestDestinationResponseZ
ListDeliveries .pinion.v1.ListDeliveriesRequest!.pinion.v1.ListDeliveriesResponse"[
ReplayDeliveries".pinion.v1.ReplayDeliveriesRequest#.pinion.v1.ReplayDeliveriesResponsebproto3`),[C,B,U,T0]);var za=y(_e,0),Ym=E(za),Qa=y(_e,1),jm=E(Qa),$r=G(_e,0);var V=x(btoa(`
pinion/v1/activity.proto	pinion.v1"z
\fExecutorInfo\f
kind (	\f
type (	
\x07version (	
\x07problem (	
egress_problem (	
\fsecret_names (	"V
\rWorkspaceInfo\f
name (	&
mode (2.pinion.v1.WorkspaceMode
\x07problem (	"c
\rKeptWorkspace\f
name (	\f
path (	
branch (	
\x07commits (
\rchanged_files ("á
\bActivity
\bsequence (&
at (\v2.google.protobuf.Timestamp$
text (\v2.pinion.v1.AgentTextH\0(
\bthinking (\v2.pinion.v1.AgentTextH\0(
	tool_call (\v2.pinion.v1.ToolCallH\0$
plan (\v2.pinion.v1.AgentPlanH\0!
usage\x07 (\v2.pinion.v1.UsageH\0*
\bquestion\b (\v2.pinion.v1.QuestionRefH\0$
note	 (\v2.pinion.v1.AgentNoteH\0B
body"-
	AgentText\f
text (	

message_id (	"Õ
\bToolCall

id (	\f
name (	!
kind (2.pinion.v1.ToolKind\r
title (	%
status (2.pinion.v1.ToolStatus\r
input (	
is_input_truncated\x07 (\b
result\b (	\x1B
is_result_truncated	 (\b"/
	AgentPlan"
steps (\v2.pinion.v1.PlanStep"C
\bPlanStep\f
text (	)
status (2.pinion.v1.PlanStepStatus"
	AgentNote\f
text (	"
Usage
\finput_tokens (H\0
\routput_tokens (H 
cached_input_tokens (H
\vcost_micros (H
\bcurrency (	
is_cost_agents_own (\b
\vmodel_turns\x07 (HB
\r_input_tokensB
_output_tokensB
_cached_input_tokensB
\f_cost_microsB
\f_model_turns"5
Budget

tokens_max (
cost_micros_max ("5
Denial\f
tool (	\r
input (	
reason (	"K

Transcript$
\x07entries (\v2.pinion.v1.Activity
omitted_entries ("I
SessionRequest

session_id (	
run_id (	
\vis_required (\b"X
QuestionOption

id (	\r
label (	+
kind (2.pinion.v1.QuestionOptionKind"Ü
\bQuestion

id (	\r
title (	\f
text (	&
	tool_call (\v2.pinion.v1.ToolCall*
\x07options (\v2.pinion.v1.QuestionOption
	tool_rule (	,
\basked_at\x07 (\v2.google.protobuf.Timestamp

takes_text\b (\b"U
\vQuestionRef
\vquestion_id (	\r
title (	
answer (	

is_default (\b"Ð
QuestionPolicy*
\x07timeout (\v2.google.protobuf.Duration2
default_answer (2.pinion.v1.QuestionDefault1

responders (2.pinion.v1.QuestionResponders+
\bwait_max (\v2.google.protobuf.Duration*
\rWorkspaceMode
WORKSPACE_MODE_UNSPECIFIED\0
WORKSPACE_MODE_SHARED\x1B
WORKSPACE_MODE_WORKTREE
WORKSPACE_MODE_COPY
WORKSPACE_MODE_EMPTY*ö
\bToolKind
TOOL_KIND_UNSPECIFIED\0
TOOL_KIND_READ
TOOL_KIND_EDIT
TOOL_KIND_DELETE
TOOL_KIND_MOVE
TOOL_KIND_SEARCH
TOOL_KIND_EXECUTE
TOOL_KIND_THINK\x07
TOOL_KIND_FETCH\b
\rTOOL_KIND_MCP	
TOOL_KIND_OTHER
*¦

ToolStatus\x1B
TOOL_STATUS_UNSPECIFIED\0
TOOL_STATUS_PENDING
TOOL_STATUS_RUNNING
TOOL_STATUS_COMPLETED
TOOL_STATUS_FAILED
TOOL_STATUS_DENIED*
PlanStepStatus 
PLAN_STEP_STATUS_UNSPECIFIED\0
PLAN_STEP_STATUS_PENDING
PLAN_STEP_STATUS_RUNNING
PLAN_STEP_STATUS_COMPLETED*¢
AttentionReason 
ATTENTION_REASON_UNSPECIFIED\0&
"ATTENTION_REASON_PERMISSION_DENIED
ATTENTION_REASON_REFUSAL
\x1BATTENTION_REASON_ANSWER_CUT
ATTENTION_REASON_MAX_TURNS
\x1BATTENTION_REASON_MAX_TOKENS\x1B
ATTENTION_REASON_BUDGET\x1B
ATTENTION_REASON_SCHEMA\x07%
!ATTENTION_REASON_QUESTION_EXPIRED\b!
ATTENTION_REASON_NOT_ENFORCED	!
ATTENTION_REASON_SESSION_GONE

ATTENTION_REASON_NO_ANSWER\v*a
\fContinueMode
CONTINUE_MODE_UNSPECIFIED\0
CONTINUE_MODE_FRESH
CONTINUE_MODE_SESSION*ð
QuestionOptionKind$
 QUESTION_OPTION_KIND_UNSPECIFIED\0#
QUESTION_OPTION_KIND_ALLOW_ONCE%
!QUESTION_OPTION_KIND_ALLOW_ALWAYS"
QUESTION_OPTION_KIND_DENY_ONCE$
 QUESTION_OPTION_KIND_DENY_ALWAYS
QUESTION_OPTION_KIND_OTHER*
QuestionResponders#
QUESTION_RESPONDERS_UNSPECIFIED\0
QUESTION_RESPONDERS_USERS$
 QUESTION_RESPONDERS_DEVICE_OWNER
QUESTION_RESPONDERS_ADMINS*j
QuestionDefault 
QUESTION_DEFAULT_UNSPECIFIED\0
QUESTION_DEFAULT_DENY
QUESTION_DEFAULT_ALLOWbproto3`),[C,B,U]);var Zm=A(V,10);var ed=A(V,17),Za=y(V,0),nd=E(Za);var e1=y(V,2),ud=E(e1);var n1=y(V,4),td=E(n1),u1=y(V,5),od=E(u1),t1=y(V,6),rd=E(t1),o1=y(V,7),id=E(o1),r1=y(V,8),sd=E(r1);var q=x(btoa(`
pinion/v1/run.proto	pinion.v1"û\r
Run

id (	

watcher_id (	
\fwatcher_slug (	
watcher_version (
\bagent_id (	
\ragent_version (
	device_id\x07 (	

agent_kind\b (	$
status	 (2.pinion.v1.RunStatus*
\vskip_reason
 (2.pinion.v1.SkipReason$
source\v (2.pinion.v1.RunSource1
\rscheduled_for\f (\v2.google.protobuf.Timestamp0
\fwindow_start\r (\v2.google.protobuf.Timestamp.

window_end (\v2.google.protobuf.Timestamp
\x07attempt (
\fmax_attempts (*
\x07timeout (\v2.google.protobuf.Duration*
due_at (\v2.google.protobuf.Timestamp.

created_at (\v2.google.protobuf.Timestamp.

not_before (\v2.google.protobuf.Timestamp5
start_deadline_at (\v2.google.protobuf.Timestamp.

claimed_at (\v2.google.protobuf.Timestamp-
	pushed_at (\v2.google.protobuf.Timestamp.

started_at (\v2.google.protobuf.Timestamp0
\flast_beat_at (\v2.google.protobuf.Timestamp7
cancel_requested_at (\v2.google.protobuf.Timestamp/
\vfinished_at\x1B (\v2.google.protobuf.Timestamp
reason (	
	exit_code (H\0
signal (	+
\bduration (\v2.google.protobuf.Duration
\voutput_tail  (	
	window_id! (	
\bretry_of" (	-
\fnotification# (2.pinion.v1.Notification-
\rpast_attempts$ (\v2.pinion.v1.PastAttempt-
	attention% (2.pinion.v1.AttentionReason
usage& (\v2.pinion.v1.Usage

model_used' (	

session_id( (	
\vstop_reason) (	"
\x07denials* (\v2.pinion.v1.Denial\r
notes+ (	
	workspace, (	0
kept_workspace- (\v2.pinion.v1.KeptWorkspace)
\bexecutor. (\v2.pinion.v1.ExecutorInfo
open_questions/ (
has_transcript0 (\b
result1 (	
\vstderr_tail2 (	
\routput_hidden3 (\b%
input4 (\v2.google.protobuf.Value$
origin5 (\v2.pinion.v1.RunOrigin
\vis_reported6 (\bB\f

_exit_code"
	RunOrigin
\x07hook_id (	
	hook_slug (	
hook_delivery_id (	
\fafter_run_id (	
after_watcher_slug (	\r
depth ("¸

RunSummary

id (	

watcher_id (	$
status (2.pinion.v1.RunStatus*
\vskip_reason (2.pinion.v1.SkipReason*
due_at (\v2.google.protobuf.Timestamp.

started_at (\v2.google.protobuf.Timestamp/
\vfinished_at\x07 (\v2.google.protobuf.Timestamp+
\bduration\b (\v2.google.protobuf.Duration"û
\vPastAttempt
\x07attempt (.

claimed_at (\v2.google.protobuf.Timestamp,
\bended_at (\v2.google.protobuf.Timestamp0
\flast_beat_at (\v2.google.protobuf.Timestamp
reason (	
\vis_reported (\b
	device_id\x07 (	
\voutput_tail\b (	"Æ
Window

id (	

watcher_id (	
run_id (	0
\fwindow_start (\v2.google.protobuf.Timestamp.

window_end (\v2.google.protobuf.Timestamp

model_used (	/
extracted_data\x07 (\v2.google.protobuf.Struct.

created_at\b (\v2.google.protobuf.Timestamp
result	 (	*

structured
 (\v2.google.protobuf.Value

agent_kind\v (	
usage\f (\v2.pinion.v1.Usage-
	attention\r (2.pinion.v1.AttentionReason
\routput_hidden (\b"
\rGetRunRequest
run_id (	"Z
GetRunResponse\x1B
run (\v2.pinion.v1.Run+
\flate_results (\v2.pinion.v1.LateResult"÷

LateResult
\x07attempt (
	device_id (	%
\x07outcome (2.pinion.v1.RunStatus-
	stored_at (\v2.google.protobuf.Timestamp
\vhas_settled (\b
output (	\x1B
is_output_truncated\x07 (\b
	exit_code\b (H\0
signal	 (	
reason
 (	+
\bduration\v (\v2.google.protobuf.Duration
result\f (	*

structured\r (\v2.google.protobuf.ValueB\f

_exit_code"µ
ListRunsRequest
	page_size (

page_token (	

watcher_id (	
	device_id (	&
\bstatuses (2.pinion.v1.RunStatus
wants_attention (\b-
	attention\x07 (2.pinion.v1.AttentionReason
labels\b (	)
since	 (\v2.google.protobuf.Timestamp)
until
 (\v2.google.protobuf.Timestamp"I
ListRunsResponse
runs (\v2.pinion.v1.Run
next_page_token (	"2
CancelRunRequest
run_id (	
reason (	"0
CancelRunResponse\x1B
run (\v2.pinion.v1.Run"5
RetryRunRequest
run_id (	

request_id (	"/
RetryRunResponse\x1B
run (\v2.pinion.v1.Run"!
WatchRunRequest
run_id (	"Â
WatchRunResponse
run (\v2.pinion.v1.RunH\0&
output (\v2.pinion.v1.RunOutputH\01
	keepalive (\v2.pinion.v1.WatchRunKeepaliveH\0*
\bactivity (\v2.pinion.v1.RunActivityH\0B\b
update"
WatchRunKeepalive"x
	RunOutput
\bsequence ('
stream (2.pinion.v1.OutputStream\f
data (\f
\x07attempt (
	device_id (	"X
\vRunActivity%
\bactivity (\v2.pinion.v1.Activity
\x07attempt (
	device_id (	"#
ExplainRunRequest
run_id (	"Ê
ExplainRunResponse\x1B
run (\v2.pinion.v1.Run
\x07summary (	
	next_step (	!
facts (\v2.pinion.v1.RunFact#
chain (\v2.pinion.v1.ChainLink+

candidates (\v2.pinion.v1.RunCandidate"
	ChainLink
run_id (	

watcher_id (	
\fwatcher_slug (	$
status (2.pinion.v1.RunStatus\r
depth (
reason (	"\`
\fRunCandidate
	device_id (	\r
label (	
\x07matches (\b\r
takes (\b
reason (	"M
\x07RunFact&
at (\v2.google.protobuf.Timestamp\f
kind (	\f
text (	"_
ListWindowsRequest

watcher_id (	
	page_size (

page_token (	
run_id (	"R
ListWindowsResponse"
\x07windows (\v2.pinion.v1.Window
next_page_token (	"&
GetTranscriptRequest
run_id (	"B
GetTranscriptResponse)

transcript (\v2.pinion.v1.Transcript"Í
SummarizeUsageRequest)
start (\v2.google.protobuf.Timestamp'
end (\v2.google.protobuf.Timestamp'
\bgroup_by (2.pinion.v1.UsageGroup

watcher_id (	
\bagent_id (	
	device_id (	"
\bUsageSum\r
group (	\f
runs (
\finput_tokens (
\routput_tokens (\x1B
cached_input_tokens (
\vcost_micros (
runs_with_cost\x07 (";
SummarizeUsageResponse!
sums (\v2.pinion.v1.UsageSum"Ü
\vRunQuestion
run_id (	

watcher_id (	
\fwatcher_slug (	
	device_id (	
\x07attempt (%
\bquestion (\v2.pinion.v1.Question'
state\x07 (2.pinion.v1.QuestionState,
\basked_at\b (\v2.google.protobuf.Timestamp/
\vdeadline_at	 (\v2.google.protobuf.Timestamp
	option_id
 (	\f
text\v (	
\vanswered_by\f (	/
\vanswered_at\r (\v2.google.protobuf.Timestamp1

responders (2.pinion.v1.QuestionResponders
\routput_hidden (\b
\x07turn_id (	"
ListQuestionsRequest
	page_size (

page_token (	
run_id (	

watcher_id (	
\x07is_open (\b
\x07turn_id (	"[
ListQuestionsResponse)
	questions (\v2.pinion.v1.RunQuestion
next_page_token (	"~
AnswerQuestionRequest
run_id (	
\vquestion_id (	
	option_id (	\f
text (	
always (\b
\x07turn_id (	"B
AnswerQuestionResponse(
\bquestion (\v2.pinion.v1.RunQuestion"À
	RunFilter&
\bstatuses (2.pinion.v1.RunStatus

watcher_id (	
	device_id (	
labels (	)
since (\v2.google.protobuf.Timestamp)
until (\v2.google.protobuf.Timestamp"
\rBulkOperation

id (	!
kind (2.pinion.v1.BulkKind$
filter (\v2.pinion.v1.RunFilter#
state (2.pinion.v1.BulkState\r
actor (	
reason (	
\x07matched\x07 (\f
done\b (
\vpassed_over	 (
failed
 (\f
left\v ((
\bproblems\f (\v2.pinion.v1.BulkProblem.

created_at\r (\v2.google.protobuf.Timestamp/
\vfinished_at (\v2.google.protobuf.Timestamp"-
\vBulkProblem
run_id (	
reason (	"
StartBulkOperationRequest!
kind (2.pinion.v1.BulkKind$
filter (\v2.pinion.v1.RunFilter
reason (	
\x07dry_run (\b

request_id (	"
StartBulkOperationResponse+
	operation (\v2.pinion.v1.BulkOperation
\x07matched (
\vnot_allowed ($
counts (\v2.pinion.v1.BulkCount"V
	BulkCount$
status (2.pinion.v1.RunStatus
\fwatcher_slug (	\r
count ("/
GetBulkOperationRequest
\foperation_id (	"G
GetBulkOperationResponse+
	operation (\v2.pinion.v1.BulkOperation"B
ListBulkOperationsRequest
	page_size (

page_token (	"c
ListBulkOperationsResponse,

operations (\v2.pinion.v1.BulkOperation
next_page_token (	"0
StopBulkOperationRequest
\foperation_id (	"H
StopBulkOperationResponse+
	operation (\v2.pinion.v1.BulkOperation"º
SummarizeRunsRequest)
start (\v2.google.protobuf.Timestamp'
end (\v2.google.protobuf.Timestamp'
span (\v2.google.protobuf.Duration

watcher_id (	
	device_id (	"i
\bRunCount)
start (\v2.google.protobuf.Timestamp$
status (2.pinion.v1.RunStatus\f
runs ("V

DeviceWork
	device_id (	\f
runs ('
busy (\v2.google.protobuf.Duration"¸
SummarizeRunsResponse#
counts (\v2.pinion.v1.RunCount&
\x07busiest (\v2.pinion.v1.DeviceWork)
start (\v2.google.protobuf.Timestamp'
end (\v2.google.protobuf.Timestamp""
SearchRunsRequest\r
query (	"6
RunHit\x1B
run (\v2.pinion.v1.Run
\x07excerpt (	"O
SearchRunsResponse
hits (\v2.pinion.v1.RunHit
results_searched (*ê
	RunStatus
RUN_STATUS_UNSPECIFIED\0
RUN_STATUS_PENDING
RUN_STATUS_CLAIMED
RUN_STATUS_RUNNING
RUN_STATUS_COMPLETED
RUN_STATUS_FAILED
RUN_STATUS_TIMEOUT
RUN_STATUS_CANCELLED\x07
RUN_STATUS_SKIPPED\b*á

SkipReason\x1B
SKIP_REASON_UNSPECIFIED\0
SKIP_REASON_OVERLAP
SKIP_REASON_COOLDOWN
SKIP_REASON_MISSED
\x1BSKIP_REASON_OFFLINE_EXPIRED\x1B
SKIP_REASON_NO_EXECUTOR
SKIP_REASON_LIMIT
SKIP_REASON_BUDGET\x07*
	RunSource
RUN_SOURCE_UNSPECIFIED\0
RUN_SOURCE_SCHEDULED
RUN_SOURCE_MANUAL
RUN_SOURCE_BACKFILL
RUN_SOURCE_HOOK
RUN_SOURCE_AFTER*y
\fNotification
NOTIFICATION_UNSPECIFIED\0
NOTIFICATION_NONE\x1B
NOTIFICATION_ON_FAILURE
NOTIFICATION_ALWAYS*a
\fOutputStream
OUTPUT_STREAM_UNSPECIFIED\0
OUTPUT_STREAM_STDOUT
OUTPUT_STREAM_STDERR*

UsageGroup\x1B
USAGE_GROUP_UNSPECIFIED\0
USAGE_GROUP_WATCHER
USAGE_GROUP_AGENT
USAGE_GROUP_DEVICE
USAGE_GROUP_DAY*
\rQuestionState
QUESTION_STATE_UNSPECIFIED\0
QUESTION_STATE_OPEN\x1B
QUESTION_STATE_ANSWERED
QUESTION_STATE_EXPIRED
QUESTION_STATE_WITHDRAWN*f
\bBulkKind
BULK_KIND_UNSPECIFIED\0
BULK_KIND_CANCEL
BULK_KIND_RETRY
BULK_KIND_REPLAY*p
	BulkState
BULK_STATE_UNSPECIFIED\0
BULK_STATE_RUNNING
BULK_STATE_FINISHED
BULK_STATE_STOPPED2¬\v

RunServiceB
GetRun.pinion.v1.GetRunRequest.pinion.v1.GetRunResponse"H
\bListRuns.pinion.v1.ListRunsRequest\x1B.pinion.v1.ListRunsResponse"F
	CancelRun\x1B.pinion.v1.CancelRunRequest.pinion.v1.CancelRunResponseC
\bRetryRun.pinion.v1.RetryRunRequest\x1B.pinion.v1.RetryRunResponseE
\bWatchRun.pinion.v1.WatchRunRequest\x1B.pinion.v1.WatchRunResponse0N

ExplainRun.pinion.v1.ExplainRunRequest.pinion.v1.ExplainRunResponse"Q
\vListWindows.pinion.v1.ListWindowsRequest.pinion.v1.ListWindowsResponse"W
\rGetTranscript.pinion.v1.GetTranscriptRequest .pinion.v1.GetTranscriptResponse"Z
SummarizeUsage .pinion.v1.SummarizeUsageRequest!.pinion.v1.SummarizeUsageResponse"W
\rSummarizeRuns.pinion.v1.SummarizeRunsRequest .pinion.v1.SummarizeRunsResponse"N

SearchRuns.pinion.v1.SearchRunsRequest.pinion.v1.SearchRunsResponse"W
\rListQuestions.pinion.v1.ListQuestionsRequest .pinion.v1.ListQuestionsResponse"U
AnswerQuestion .pinion.v1.AnswerQuestionRequest!.pinion.v1.AnswerQuestionResponsea
StartBulkOperation$.pinion.v1.StartBulkOperationRequest%.pinion.v1.StartBulkOperationResponse\`
GetBulkOperation".pinion.v1.GetBulkOperationRequest#.pinion.v1.GetBulkOperationResponse"f
ListBulkOperations$.pinion.v1.ListBulkOperationsRequest%.pinion.v1.ListBulkOperationsResponse"^
StopBulkOperation#.pinion.v1.StopBulkOperationRequest$.pinion.v1.StopBulkOperationResponsebproto3`),[C,B,n0,U,V]);var i1=y(q,0),md=E(i1),s1=y(q,1),dd=E(s1),a1=y(q,2),_d=E(a1),c1=y(q,3),bd=E(c1),p1=y(q,4),hd=E(p1),l1=y(q,5),gd=E(l1);var f1=y(q,7),vd=E(f1),m1=y(q,8),Sd=E(m1),Br=G(q,0);var x0=x(btoa(`
pinion/v1/watcher.proto	pinion.v1"\b
\vWatcherSpec\f
name (	
prompt (	
\bagent_id (	
	device_id (	

agent_kind (	
\bschedule (	
	time_zone\x07 (	)
\x07overlap\b (2.pinion.v1.OverlapPolicy)
\x07catchup	 (2.pinion.v1.CatchupPolicy1
catchup_window
 (\v2.google.protobuf.Duration)
jitter\v (\v2.google.protobuf.Duration/
\fmin_cooldown\f (\v2.google.protobuf.Duration1
start_deadline\r (\v2.google.protobuf.Duration*
\x07timeout (\v2.google.protobuf.Duration
\fmax_attempts (-
\fnotification (2.pinion.v1.Notification2
extraction_schema (\v2.google.protobuf.Struct
	workspace (	%

run_budget (\v2.pinion.v1.Budget%

day_budget (\v2.pinion.v1.Budget,
	questions (\v2.pinion.v1.QuestionPolicy.
\rcontinue_mode (2.pinion.v1.ContinueMode\r
after (	
after_condition (	
redact (	
\bselector (	%
spread\x1B (2.pinion.v1.SpreadMode*
group (\v2\x1B.pinion.v1.ConcurrencyGroup
\bpriority ((

rate_limit (\v2.pinion.v1.RateLimit!
notify (\v2.pinion.v1.Notify"S
ConcurrencyGroup\f
name (	\v
max ($
scope (2.pinion.v1.GroupScope",
	RateLimit\v
key (	

per_minute ("¿
\x07Watcher

id (	\f
slug (	$
spec (\v2.pinion.v1.WatcherSpec
\x07version ((
status (2.pinion.v1.WatcherStatus
\rpaused_reason (	0
\fnext_slot_at\x07 (\v2.google.protobuf.Timestamp/
\vnext_due_at\b (\v2.google.protobuf.Timestamp2
queued_slot_at	 (\v2.google.protobuf.Timestamp1
\rlast_fired_at
 (\v2.google.protobuf.Timestamp
consecutive_failures\v (1
\rbackoff_until\f (\v2.google.protobuf.Timestamp
\ractive_run_id\r (	.

created_at (\v2.google.protobuf.Timestamp.

updated_at (\v2.google.protobuf.Timestamp
no_executor_reason (	
unrunnable_slots (*
\vrecent_runs (\v2.pinion.v1.RunSummary.

next_slots (\v2.google.protobuf.Timestamp"o
CreateWatcherRequest\f
slug (	$
spec (\v2.pinion.v1.WatcherSpec

request_id (	
\x07dry_run (\b"S
CreateWatcherResponse#
\x07watcher (\v2.pinion.v1.Watcher
\rwatchers_left ("\`
GetWatcherRequest

watcher_id (	\x1B
include_recent_runs (\b
include_next_slots (\b"9
GetWatcherResponse#
\x07watcher (\v2.pinion.v1.Watcher"
ListWatchersRequest
	page_size (

page_token (	
	device_id (	\x1B
include_recent_runs (\b
include_next_slots (\b"U
ListWatchersResponse$
\bwatchers (\v2.pinion.v1.Watcher
next_page_token (	"¬
UpdateWatcherRequest

watcher_id (	$
spec (\v2.pinion.v1.WatcherSpec/
\vupdate_mask (\v2.google.protobuf.FieldMask
expected_version (
\x07dry_run (\b"<
UpdateWatcherResponse#
\x07watcher (\v2.pinion.v1.Watcher"*
DeleteWatcherRequest

watcher_id (	"
DeleteWatcherResponse"9
PauseWatcherRequest

watcher_id (	
reason (	";
PauseWatcherResponse#
\x07watcher (\v2.pinion.v1.Watcher"*
ResumeWatcherRequest

watcher_id (	"<
ResumeWatcherResponse#
\x07watcher (\v2.pinion.v1.Watcher"f
TriggerWatcherRequest

watcher_id (	

request_id (	%
input (\v2.google.protobuf.Value"d
TriggerWatcherResponse\x1B
run (\v2.pinion.v1.Run
already_queued (\b
\rqueued_run_id (	"
PreviewScheduleRequest

watcher_id (	
\bschedule (	
	time_zone (	\r
count ()
after (\v2.google.protobuf.Timestamp"W
PreviewScheduleResponse)
slots (\v2.google.protobuf.Timestamp
	time_zone (	"
BackfillWatcherRequest

watcher_id (	)
start (\v2.google.protobuf.Timestamp'
end (\v2.google.protobuf.Timestamp"H
BackfillWatcherResponse
slots_accepted (
\rslots_present ("1
\x1BListWatcherRevisionsRequest

watcher_id (	"¤
WatcherRevision
\x07version (\f
name (	
prompt (	2
extraction_schema (\v2.google.protobuf.Struct.

created_at (\v2.google.protobuf.Timestamp"M
ListWatcherRevisionsResponse-
	revisions (\v2.pinion.v1.WatcherRevision*
\rOverlapPolicy
OVERLAP_POLICY_UNSPECIFIED\0
OVERLAP_POLICY_SKIP
OVERLAP_POLICY_QUEUE_ONE
OVERLAP_POLICY_QUEUE_ALL*e
\rCatchupPolicy
CATCHUP_POLICY_UNSPECIFIED\0\x1B
CATCHUP_POLICY_COLLAPSE
CATCHUP_POLICY_MISS*¡
\rWatcherStatus
WATCHER_STATUS_UNSPECIFIED\0
WATCHER_STATUS_ACTIVE
WATCHER_STATUS_PAUSED
WATCHER_STATUS_NO_EXECUTOR
WATCHER_STATUS_RESTING*S

SpreadMode\x1B
SPREAD_MODE_UNSPECIFIED\0
SPREAD_MODE_ONE
SPREAD_MODE_ALL*V

GroupScope\x1B
GROUP_SCOPE_UNSPECIFIED\0
GROUP_SCOPE_ORG
GROUP_SCOPE_DEVICE2Õ\x07
WatcherServiceR
\rCreateWatcher.pinion.v1.CreateWatcherRequest .pinion.v1.CreateWatcherResponseN

GetWatcher.pinion.v1.GetWatcherRequest.pinion.v1.GetWatcherResponse"T
\fListWatchers.pinion.v1.ListWatchersRequest.pinion.v1.ListWatchersResponse"R
\rUpdateWatcher.pinion.v1.UpdateWatcherRequest .pinion.v1.UpdateWatcherResponseR
\rDeleteWatcher.pinion.v1.DeleteWatcherRequest .pinion.v1.DeleteWatcherResponseO
\fPauseWatcher.pinion.v1.PauseWatcherRequest.pinion.v1.PauseWatcherResponseR
\rResumeWatcher.pinion.v1.ResumeWatcherRequest .pinion.v1.ResumeWatcherResponseU
TriggerWatcher .pinion.v1.TriggerWatcherRequest!.pinion.v1.TriggerWatcherResponse]
PreviewSchedule!.pinion.v1.PreviewScheduleRequest".pinion.v1.PreviewScheduleResponse"X
BackfillWatcher!.pinion.v1.BackfillWatcherRequest".pinion.v1.BackfillWatcherResponsel
ListWatcherRevisions&.pinion.v1.ListWatcherRevisionsRequest'.pinion.v1.ListWatcherRevisionsResponse"bproto3`),[C,B,U0,n0,U,V,_e,q]),wd=A(x0,0);var d1=y(x0,0),Od=E(d1),_1=y(x0,1),Dd=E(_1),b1=y(x0,2),Ad=E(b1);var qr=G(x0,0);var hn=x(btoa(`
pinion/v1/device.proto	pinion.v1"ï
ConnectRequest!
hello (\v2.pinion.v1.HelloH\0)
	heartbeat (\v2.pinion.v1.HeartbeatH\0#
accept (\v2.pinion.v1.AcceptH\0#
reject (\v2.pinion.v1.RejectH\0#
output (\v2.pinion.v1.OutputH\0)
\bcomplete (\v2.pinion.v1.CompletionH\0)
	cancelled\x07 (\v2.pinion.v1.CancelledH\0-
\bactivity\b (\v2.pinion.v1.ActivityReportH\0,
\bquestion	 (\v2.pinion.v1.QuestionAskedH\04
question_closed
 (\v2.pinion.v1.QuestionClosedH\0,
\vlog_excerpt\v (\v2.pinion.v1.LogExcerptH\0B	
\x07message"ñ
ConnectResponse%
\x07welcome (\v2.pinion.v1.WelcomeH\00
\rheartbeat_ack (\v2.pinion.v1.HeartbeatAckH\0+

assignment (\v2.pinion.v1.AssignmentH\0#
cancel (\v2.pinion.v1.CancelH\02
completion_ack (\v2.pinion.v1.CompletionAckH\0!
drain (\v2.pinion.v1.DrainH\0#
answer\x07 (\v2.pinion.v1.AnswerH\0,
\vlog_request\b (\v2.pinion.v1.LogRequestH\0B	
\x07message"
Hello

install_id (	
os (2\r.pinion.v1.Os
\vapp_version (	\r
label (	
\vagent_kinds (	
\fcapabilities (	
max_concurrency\x07 ($
held\b (\v2.pinion.v1.HeldAttempt*
	executors	 (\v2.pinion.v1.ExecutorInfo,

workspaces
 (\v2.pinion.v1.WorkspaceInfo
config_problem\v (	#
\x07machine\f (\v2.pinion.v1.Machine'
\x07upgrade\r (\v2.pinion.v1.UpgradeInfo"¬
\x07Machine
\fmachine_hash (	
	boot_hash (	
	host_name (	\f
arch (	
	daemon_id (	-

daemon_age (\v2.google.protobuf.Duration
\rsession_epoch\x07 ("a
\vHeldAttempt
\x07work_id (	
\rattempt_token (	*
state (2\x1B.pinion.v1.HeldAttemptState"Ê
\x07Welcome
	device_id (	
\rsession_epoch (

replica_id (	/
\vserver_time (\v2.google.protobuf.Timestamp!
timers (\v2.pinion.v1.Timers!
limits (\v2.pinion.v1.Limits/
\bverdicts\x07 (\v2.pinion.v1.HeldAttemptVerdict
\fcapabilities\b (	+
\vincarnation	 (\v2.pinion.v1.Incarnation
daemon_version
 (	"3

LogRequest

request_id (	
	lines_max ("D

LogExcerpt

request_id (	\f
text (	
\fis_truncated (\b"\\
\vUpgradeInfo$
mode (2.pinion.v1.UpgradeMode
failed_version (	
\x07problem (	"c
\vIncarnation
system_identifier (	
\btimeline (\r
\bposition (	
\rsafe_position (	"
Timers5
heartbeat_interval (\v2.google.protobuf.Duration&
ttl (\v2.google.protobuf.Duration2
accept_deadline (\v2.google.protobuf.Duration"
Limits
message_bytes_max (#
\x1Bcompletion_output_bytes_max (
output_chunk_bytes_max (
transcript_bytes_max ("e
HeldAttemptVerdict
\x07work_id (	
\rattempt_token (	'
\x07verdict (2.pinion.v1.HeldVerdict"F
	Heartbeat
\bsequence ('
\battempts (\v2.pinion.v1.AttemptRef"4

AttemptRef
\x07work_id (	
\rattempt_token (	"Q
\fHeartbeatAck
\bsequence (/
\vserver_time (\v2.google.protobuf.Timestamp"å

Assignment
\x07work_id (	
\rattempt_token (	
\x07attempt ('
kind (2.pinion.v1.AssignmentKind

agent_kind (	*
\x07timeout (\v2.google.protobuf.Duration-
\fnotification\x07 (2.pinion.v1.Notification'
agent\b (\v2.pinion.v1.AgentSnapshot+
\x07watcher	 (\v2.pinion.v1.WatcherSnapshot%
event
 (\v2.pinion.v1.FiringEvent&
\x07context\v (\v2.pinion.v1.RunContext
\vtraceparent\f (	'
turn\r (\v2.pinion.v1.TurnAssignment
	workspace (	*
\x07session (\v2.pinion.v1.SessionRequest!
budget (\v2.pinion.v1.Budget,
	questions (\v2.pinion.v1.QuestionPolicy
\vagent_token (	"Ø
TurnAssignment
conversation_id (	

message_id (	\r
input (	
\ruses_snapshot (\b
\bsnapshot (\f
snapshot_version (/
\vdeadline_at\x07 (\v2.google.protobuf.Timestamp
subject_run_id\b (	"
WatcherSnapshot

id (	\f
slug (	\f
name (	
\x07version (
prompt (	2
extraction_schema (\v2.google.protobuf.Struct"
\vFiringEvent,
\bfired_at (\v2.google.protobuf.Timestamp$
source (2.pinion.v1.RunSource1
\rscheduled_for (\v2.google.protobuf.Timestamp0
\fwindow_start (\v2.google.protobuf.Timestamp.

window_end (\v2.google.protobuf.Timestamp\r
input (	"a

RunContext
	device_id (	
conversation_id (	'
\fprior_window (\v2.pinion.v1.Window"0
Accept
\x07work_id (	
\rattempt_token (	"j
Reject
\x07work_id (	
\rattempt_token (	'
reason (2.pinion.v1.RejectReason
\x07message (	"y
Output
\x07work_id (	
\rattempt_token (	
\bsequence ('
stream (2.pinion.v1.OutputStream\f
data (\f"a
ActivityReport
\x07work_id (	
\rattempt_token (	'

activities (\v2.pinion.v1.Activity"^
\rQuestionAsked
\x07work_id (	
\rattempt_token (	%
\bquestion (\v2.pinion.v1.Question"}
QuestionClosed
\x07work_id (	
\rattempt_token (	
\vquestion_id (	.
reason (2.pinion.v1.QuestionCloseReason"z
Answer
\x07work_id (	
\rattempt_token (	
\vquestion_id (	
	option_id (	\f
text (	

is_default (\b"Í

Completion
\x07work_id (	
\rattempt_token (	#
\x07outcome (2.pinion.v1.Outcome
output (	\x1B
is_output_truncated (\b
	exit_code (H\0
signal\x07 (	
reason\b (	+
\bduration	 (\v2.google.protobuf.Duration
\rnext_snapshot
 (\fH
\vresult_text\v (	\x1B
is_result_truncated\f (\b

structured\r (	
usage (\v2.pinion.v1.Usage

session_id (	

model_used (	
\vstop_reason (	"
\x07denials (\v2.pinion.v1.Denial-
	attention (2.pinion.v1.AttentionReason)

transcript (\v2.pinion.v1.Transcript.
\vretry_after (\v2.google.protobuf.Duration)
\bexecutor (\v2.pinion.v1.ExecutorInfo0
kept_workspace (\v2.pinion.v1.KeptWorkspace\r
notes (	
\vstderr_tail (	#
\x07reoffer (\v2.pinion.v1.Reoffer,
\fturn_reoffer\x1B (\v2.pinion.v1.TurnReofferB\f

_exit_codeB
_next_snapshot"é
\x07Reoffer

watcher_id (	
\x07attempt ($
source (2.pinion.v1.RunSource1
\rscheduled_for (\v2.google.protobuf.Timestamp0
\fwindow_start (\v2.google.protobuf.Timestamp.

window_end (\v2.google.protobuf.Timestamp"
\vTurnReoffer
\bagent_id (	
conversation_id (	

message_id (	\r
input (	
\finput_sha256 (\f
\x07attempt (
\ruses_snapshot\x07 (\b"·
\rCompletionAck
\x07work_id (	
\rattempt_token (	-
\x07verdict (2.pinion.v1.CompletionVerdict
	window_id (	
\x07message (	+
\vincarnation (\v2.pinion.v1.Incarnation"@
Cancel
\x07work_id (	
\rattempt_token (	
reason (	"3
	Cancelled
\x07work_id (	
\rattempt_token (	"
Drain&
reason (2.pinion.v1.DrainReason2
reconnect_after (\v2.google.protobuf.Duration
\x07message (	\f
cell (	"u
\rEnrollRequest
	join_code (	

install_id (	
os (2\r.pinion.v1.Os\r
label (	
\vapp_version (	"\\
EnrollResponse
	device_id (	
org_id (	\r
token (	
same_label_count ("?
CompleteRunRequest)

completion (\v2.pinion.v1.Completion"
CompleteRunResponse-
\x07verdict (2.pinion.v1.CompletionVerdict
	window_id (	
\x07message (	+
\vincarnation (\v2.pinion.v1.Incarnation"_
"DeviceServiceTriggerWatcherRequest

watcher_id (	%
input (\v2.google.protobuf.Value"q
#DeviceServiceTriggerWatcherResponse\x1B
run (\v2.pinion.v1.Run
already_queued (\b
\rqueued_run_id (	">
ListMyWatchersRequest
	page_size (

page_token (	"W
ListMyWatchersResponse$
\bwatchers (\v2.pinion.v1.Watcher
next_page_token (	*p
Os
OS_UNSPECIFIED\0\f
\bOS_MACOS\f
\bOS_LINUX

OS_WINDOWS

OS_IOS

OS_ANDROID

OS_BROWSER*w
HeldAttemptState"
HELD_ATTEMPT_STATE_UNSPECIFIED\0
HELD_ATTEMPT_STATE_RUNNING
\x1BHELD_ATTEMPT_STATE_FINISHED*~
\vUpgradeMode
UPGRADE_MODE_UNSPECIFIED\0
UPGRADE_MODE_MANUAL
UPGRADE_MODE_AUTOMATIC
UPGRADE_MODE_UNAVAILABLE*
\vHeldVerdict
HELD_VERDICT_UNSPECIFIED\0
HELD_VERDICT_CONTINUE
HELD_VERDICT_ABORT
HELD_VERDICT_SEND_RESULT
\x1BHELD_VERDICT_ALREADY_STORED*l
AssignmentKind
\x1BASSIGNMENT_KIND_UNSPECIFIED\0
\x1BASSIGNMENT_KIND_WATCHER_RUN
ASSIGNMENT_KIND_TURN* 
\fRejectReason
REJECT_REASON_UNSPECIFIED\0
REJECT_REASON_BUSY
\x1BREJECT_REASON_SHUTTING_DOWN
REJECT_REASON_UNSUPPORTED
REJECT_REASON_INVALID*
QuestionCloseReason%
!QUESTION_CLOSE_REASON_UNSPECIFIED\0#
QUESTION_CLOSE_REASON_WITHDRAWN!
QUESTION_CLOSE_REASON_EXPIRED*y
\x07Outcome
OUTCOME_UNSPECIFIED\0
OUTCOME_COMPLETED
OUTCOME_FAILED
OUTCOME_TIMEOUT
OUTCOME_CANCELLED*
CompletionVerdict"
COMPLETION_VERDICT_UNSPECIFIED\0
COMPLETION_VERDICT_STORED%
!COMPLETION_VERDICT_ALREADY_STORED!
COMPLETION_VERDICT_SUPERSEDED
COMPLETION_VERDICT_UNKNOWN
COMPLETION_VERDICT_INVALID"
COMPLETION_VERDICT_STORED_LATE*°
\vDrainReason
DRAIN_REASON_UNSPECIFIED\0
DRAIN_REASON_SHUTDOWN
DRAIN_REASON_REPLACED
DRAIN_REASON_MAX_AGE
DRAIN_REASON_OPERATOR
DRAIN_REASON_REVOKED2¯
\rDeviceServiceD
\x07Connect.pinion.v1.ConnectRequest.pinion.v1.ConnectResponse(0=
Enroll.pinion.v1.EnrollRequest.pinion.v1.EnrollResponseL
\vCompleteRun.pinion.v1.CompleteRunRequest.pinion.v1.CompleteRunResponseo
TriggerWatcher-.pinion.v1.DeviceServiceTriggerWatcherRequest..pinion.v1.DeviceServiceTriggerWatcherResponseZ
ListMyWatchers .pinion.v1.ListMyWatchersRequest!.pinion.v1.ListMyWatchersResponse"bproto3`),[C,B,n0,U,V,T0,q,x0]);var h1=y(hn,0),Wd=E(h1);var g1=y(hn,2),Vd=E(g1);var Cu=x(btoa(`
pinion/v1/fleet.proto	pinion.v1"L
\x07Grantee
\x07user_id (	H\0
\beveryone (\bH\0
\btoken_id (	H\0B
kind"
Grant

id (	
	device_id (	
\fdevice_label (	#
\x07grantee (\v2.pinion.v1.Grantee
\fgrantee_name (	.

permission (2.pinion.v1.GrantPermission

granted_by\x07 (	.

created_at\b (\v2.google.protobuf.Timestamp1
\rfirst_used_at	 (\v2.google.protobuf.Timestamp"}
GrantDeviceRequest
	device_id (	#
\x07grantee (\v2.pinion.v1.Grantee/
\vpermissions (2.pinion.v1.GrantPermission"7
GrantDeviceResponse 
grants (\v2.pinion.v1.Grant"}
RevokeGrantRequest
	device_id (	#
\x07grantee (\v2.pinion.v1.Grantee/
\vpermissions (2.pinion.v1.GrantPermission"h
RevokeGrantResponse 
grants (\v2.pinion.v1.Grant
watchers_paused (
runs_cancelled ("M
ListGrantsRequest
	device_id (	
	page_size (

page_token (	"O
ListGrantsResponse 
grants (\v2.pinion.v1.Grant
next_page_token (	"§\x07
Device

id (	\r
label (	
os (2\r.pinion.v1.Os

install_id (	
\vapp_version (	
\vagent_kinds (	
\fcapabilities\x07 (	
max_concurrency\b (
\bowner_id	 (	%
\bliveness
 (2.pinion.v1.Liveness
\rsession_epoch\v (

replica_id\f (	0
\fconnected_at\r (\v2.google.protobuf.Timestamp3
disconnected_at (\v2.google.protobuf.Timestamp0
\flast_beat_at (\v2.google.protobuf.Timestamp
\vactive_runs (
\fpending_runs (.

created_at (\v2.google.protobuf.Timestamp
	is_worker (\b'
\blast_run (\v2.pinion.v1.RunSummary*
	executors (\v2.pinion.v1.ExecutorInfo,

workspaces (\v2.pinion.v1.WorkspaceInfo
config_problem (	
	host_name (	.
	duplicate (\v2\x1B.pinion.v1.DuplicateMachine+
\x07allowed (2.pinion.v1.GrantPermission
labels\x1B (	
reported_labels (	\f
arch (	'
\x07upgrade (\v2.pinion.v1.UpgradeInfo$
\babsences (\v2.pinion.v1.Absence";
GetDeviceLogRequest
	device_id (	
	lines_max (":
GetDeviceLogResponse\f
text (	
\fis_truncated (\b"[
\x07Absence(
from (\v2.google.protobuf.Timestamp&
to (\v2.google.protobuf.Timestamp"R
DuplicateMachine
	host_name (	+
\x07seen_at (\v2.google.protobuf.Timestamp"
ListDevicesRequest
	page_size (

page_token (	
	is_worker (\bH\0%
\bliveness (2.pinion.v1.Liveness
label_contains (	(
operating_systems (2\r.pinion.v1.Os
include_last_run\x07 (\b
labels\b (	
\bselector	 (	B\f

_is_worker"R
ListDevicesResponse"
\x07devices (\v2.pinion.v1.Device
next_page_token (	"%
GetDeviceRequest
	device_id (	"6
GetDeviceResponse!
device (\v2.pinion.v1.Device"h
UpdateDeviceRequest
	device_id (	\r
label (	/
\vupdate_mask (\v2.google.protobuf.FieldMask"9
UpdateDeviceResponse!
device (\v2.pinion.v1.Device"U
LabelDeviceRequest
	device_id (	\v
add (	
remove (	
\x07dry_run (\b"8
LabelDeviceResponse!
device (\v2.pinion.v1.Device"(
DeleteDeviceRequest
	device_id (	"b
DeleteDeviceResponse
watchers_unpinned (
runs_cancelled (
agents_unpinned (",
DisconnectDeviceRequest
	device_id (	"
DisconnectDeviceResponse"Z
CreateJoinCodeRequest-

expires_in (\v2.google.protobuf.Duration

request_id (	"[
CreateJoinCodeResponse
	join_code (	.

expires_at (\v2.google.protobuf.Timestamp*
GrantPermission 
GRANT_PERMISSION_UNSPECIFIED\0
GRANT_PERMISSION_USE\x1B
GRANT_PERMISSION_MANAGE
GRANT_PERMISSION_READ*z
\bLiveness
LIVENESS_UNSPECIFIED\0
LIVENESS_ONLINE
LIVENESS_UNSTEADY
LIVENESS_OFFLINE
LIVENESS_NEVER2\x07
\fFleetServiceQ
\vListDevices.pinion.v1.ListDevicesRequest.pinion.v1.ListDevicesResponse"K
	GetDevice\x1B.pinion.v1.GetDeviceRequest.pinion.v1.GetDeviceResponse"O
\fUpdateDevice.pinion.v1.UpdateDeviceRequest.pinion.v1.UpdateDeviceResponseL
\vLabelDevice.pinion.v1.LabelDeviceRequest.pinion.v1.LabelDeviceResponseO
\fDeleteDevice.pinion.v1.DeleteDeviceRequest.pinion.v1.DeleteDeviceResponse[
DisconnectDevice".pinion.v1.DisconnectDeviceRequest#.pinion.v1.DisconnectDeviceResponseT
\fGetDeviceLog.pinion.v1.GetDeviceLogRequest.pinion.v1.GetDeviceLogResponse"U
CreateJoinCode .pinion.v1.CreateJoinCodeRequest!.pinion.v1.CreateJoinCodeResponseL
\vGrantDevice.pinion.v1.GrantDeviceRequest.pinion.v1.GrantDeviceResponseL
\vRevokeGrant.pinion.v1.RevokeGrantRequest.pinion.v1.RevokeGrantResponseN

ListGrants.pinion.v1.ListGrantsRequest.pinion.v1.ListGrantsResponse"bproto3`),[C,B,U0,U,V,hn,q]);var v1=y(Cu,0),Jd=E(v1),S1=y(Cu,1),Xd=E(S1),Hr=G(Cu,0);var be=x(btoa(`
pinion/v1/org.proto	pinion.v1"i
Org

id (	\f
name (	
default_agent_id (	.

created_at (\v2.google.protobuf.Timestamp"±
\vSecretState'
holder (2.pinion.v1.SecretHolder
\vholder_name (	\f
name (	
\x07version (*
set_at (\v2.google.protobuf.Timestamp0
\flast_used_at (\v2.google.protobuf.Timestamp3
past_good_until\x07 (\v2.google.protobuf.Timestamp
	reference\b (	
key_id	 (	
\x07problem
 (	"
Member
\x07user_id (	\f
name (	\r
email (	#
role (2.pinion.v1.MemberRole.

created_at (\v2.google.protobuf.Timestamp"m
CreateOrgRequest
org_id (	\f
name (	
\vowner_email (	

owner_name (	

request_id (	"b
CreateOrgResponse\x1B
org (\v2.pinion.v1.Org 
owner (\v2.pinion.v1.Member
secret (	"
\rGetOrgRequest"-
GetOrgResponse\x1B
org (\v2.pinion.v1.Org"8
ListOrgsRequest
	page_size (

page_token (	"I
ListOrgsResponse
orgs (\v2.pinion.v1.Org
next_page_token (	";
ListSecretsRequest
	page_size (

page_token (	"W
ListSecretsResponse'
\x07secrets (\v2.pinion.v1.SecretState
next_page_token (	"
AddMemberRequest\r
email (	\f
name (	#
role (2.pinion.v1.MemberRole
\ftoken_scopes (	

request_id (	\x1B
keep_service_tokens (\b"
AddMemberResponse!
member (\v2.pinion.v1.Member
secret (	

tokens_cut (
service_tokens_cut (\x1B
service_tokens_kept ("E
RemoveMemberRequest
\x07user_id (	
revoke_service_tokens (\b"³
RemoveMemberResponse
tokens_revoked (
watchers_unpinned (
runs_cancelled (\x1B
service_tokens_kept (
agents_handed_over (
agents_unpinned (";
ListMembersRequest
	page_size (

page_token (	"R
ListMembersResponse"
\x07members (\v2.pinion.v1.Member
next_page_token (	*o

MemberRole\x1B
MEMBER_ROLE_UNSPECIFIED\0
MEMBER_ROLE_OWNER
MEMBER_ROLE_ADMIN
MEMBER_ROLE_MEMBER*
\fSecretHolder
SECRET_HOLDER_UNSPECIFIED\0
SECRET_HOLDER_PLATFORM
SECRET_HOLDER_DESTINATION
SECRET_HOLDER_HOOK2¡

OrgServiceF
	CreateOrg\x1B.pinion.v1.CreateOrgRequest.pinion.v1.CreateOrgResponseB
GetOrg.pinion.v1.GetOrgRequest.pinion.v1.GetOrgResponse"F
	AddMember\x1B.pinion.v1.AddMemberRequest.pinion.v1.AddMemberResponseO
\fRemoveMember.pinion.v1.RemoveMemberRequest.pinion.v1.RemoveMemberResponseH
\bListOrgs.pinion.v1.ListOrgsRequest\x1B.pinion.v1.ListOrgsResponse"Q
\vListSecrets.pinion.v1.ListSecretsRequest.pinion.v1.ListSecretsResponse"Q
\vListMembers.pinion.v1.ListMembersRequest.pinion.v1.ListMembersResponse"bproto3`),[C,U]);var y1=y(be,0),n2=E(y1),E1=y(be,1),u2=E(E1),Kr=G(be,0);var Pu=x(btoa(`
pinion/v1/sign_in.proto	pinion.v1"¾
\vSignInEntry

id (	
\x07user_id (	'
method (2.pinion.v1.SignInMethod
\x07address (	

user_agent (	
scopes (	.

created_at\x07 (\v2.google.protobuf.Timestamp.

expires_at\b (\v2.google.protobuf.Timestamp0
\flast_used_at	 (\v2.google.protobuf.Timestamp
\x07current
 (\b
	user_name\v (	"
GetSignInOptionsRequest"@
GetSignInOptionsResponse
	oidc_name (	
	signed_in (\b"(
CreateSignInLinkRequest\r
place (	"X
CreateSignInLinkResponse\f
path (	.

expires_at (\v2.google.protobuf.Timestamp"C
\rSignInRequest
	link_code (	H\0
token (	H\0B\f

credential"9
SignInResponse'
\x07sign_in (\v2.pinion.v1.SignInEntry"
SignOutRequest"
SignOutResponse"
GetCallerRequest"±
GetCallerResponse
org_id (	
\borg_name (	
\x07user_id (	
	user_name (	#
role (2.pinion.v1.MemberRole
scopes (	

sign_in_id\x07 (	\r
email\b (	";
ListSignInsRequest
	page_size (

page_token (	"X
ListSignInsResponse(
\bsign_ins (\v2.pinion.v1.SignInEntry
next_page_token (	"&
EndSignInRequest

sign_in_id (	"
EndSignInResponse"(
StartLoginRequest
\vclient_name (	"§
StartLoginResponse
\vdevice_code (	
	user_code (	\f
path (	.

expires_at (\v2.google.protobuf.Timestamp+
\binterval (\v2.google.protobuf.Duration")
FinishLoginRequest
\vdevice_code (	"n
FinishLoginResponse$
state (2.pinion.v1.LoginState
secret (	
org_id (	
	user_name (	"$
GetLoginRequest
	user_code (	"¾
GetLoginResponse
\vclient_name (	
\x07address (	.

started_at (\v2.google.protobuf.Timestamp.

expires_at (\v2.google.protobuf.Timestamp$
state (2.pinion.v1.LoginState"8
DecideLoginRequest
	user_code (	
\x07confirm (\b"
DecideLoginResponse*z
\fSignInMethod
SIGN_IN_METHOD_UNSPECIFIED\0
SIGN_IN_METHOD_LINK
SIGN_IN_METHOD_TOKEN
SIGN_IN_METHOD_OIDC*u

LoginState\x1B
LOGIN_STATE_UNSPECIFIED\0
LOGIN_STATE_PENDING
LOGIN_STATE_CONFIRMED
LOGIN_STATE_DENIED2è
\rSignInService\`
GetSignInOptions".pinion.v1.GetSignInOptionsRequest#.pinion.v1.GetSignInOptionsResponse"[
CreateSignInLink".pinion.v1.CreateSignInLinkRequest#.pinion.v1.CreateSignInLinkResponse=
SignIn.pinion.v1.SignInRequest.pinion.v1.SignInResponse@
\x07SignOut.pinion.v1.SignOutRequest.pinion.v1.SignOutResponseK
	GetCaller\x1B.pinion.v1.GetCallerRequest.pinion.v1.GetCallerResponse"Q
\vListSignIns.pinion.v1.ListSignInsRequest.pinion.v1.ListSignInsResponse"F
	EndSignIn\x1B.pinion.v1.EndSignInRequest.pinion.v1.EndSignInResponseI

StartLogin.pinion.v1.StartLoginRequest.pinion.v1.StartLoginResponseL
\vFinishLogin.pinion.v1.FinishLoginRequest.pinion.v1.FinishLoginResponseH
\bGetLogin.pinion.v1.GetLoginRequest\x1B.pinion.v1.GetLoginResponse"L
\vDecideLogin.pinion.v1.DecideLoginRequest.pinion.v1.DecideLoginResponsebproto3`),[C,B,U,be]);var R1=y(Pu,0),a2=E(R1),N1=y(Pu,1),c2=E(N1),Yr=G(Pu,0);var jr=x(btoa(`
pinion/v1/turn.proto	pinion.v1"û\x07
Turn

id (	
\bagent_id (	
\ragent_version (
conversation_id (	

message_id (	
run_id (	%
status\x07 (2.pinion.v1.TurnStatus\r
input\b (	\r
reply	 (	
is_reply_truncated
 (\b
reason\v (	
\fis_retryable\f (\b
	device_id\r (	
	holder_id (	
\x07attempt (

agent_kind (	*
\x07timeout (\v2.google.protobuf.Duration
\ruses_snapshot (\b
snapshot_version (
	exit_code (H\0
signal (	+
\bduration (\v2.google.protobuf.Duration.

created_at (\v2.google.protobuf.Timestamp5
start_deadline_at (\v2.google.protobuf.Timestamp.

claimed_at (\v2.google.protobuf.Timestamp.

started_at (\v2.google.protobuf.Timestamp0
\flast_beat_at\x1B (\v2.google.protobuf.Timestamp/
\vdeadline_at (\v2.google.protobuf.Timestamp.

expires_at (\v2.google.protobuf.Timestamp7
cancel_requested_at (\v2.google.protobuf.Timestamp/
\vfinished_at (\v2.google.protobuf.Timestamp
open_questions  (
\voutput_tail! (	B\f

_exit_code"¸
StartTurnRequest
\bagent_id (	
conversation_id (	
\x07user_id (	

watcher_id (	
run_id (	

message_id (	\r
input\x07 (	

agent_kind\b (	*
\x07timeout	 (\v2.google.protobuf.Duration0
\rstart_timeout
 (\v2.google.protobuf.Duration
without_snapshot\v (\b
\rresume_run_id\f (	"K
StartTurnResponse
turn (\v2.pinion.v1.Turn
already_started (\b"!
GetTurnRequest
\x07turn_id (	"]
GetTurnResponse
turn (\v2.pinion.v1.Turn+
\flate_results (\v2.pinion.v1.LateResult";
WatchTurnRequest
\x07turn_id (	
after_sequence ("å
WatchTurnResponse
turn (\v2.pinion.v1.TurnH\0&
output (\v2.pinion.v1.RunOutputH\0 
ended (\v2.pinion.v1.TurnH\02
	keepalive (\v2.pinion.v1.WatchTurnKeepaliveH\0'
\bactivity (\v2.pinion.v1.ActivityH\0B\b
update"
WatchTurnKeepalive"
ListTurnsRequest
	page_size (

page_token (	
conversation_id (	
\bagent_id (	'
\bstatuses (2.pinion.v1.TurnStatus"L
ListTurnsResponse
turns (\v2.pinion.v1.Turn
next_page_token (	"4
CancelTurnRequest
\x07turn_id (	
reason (	"3
CancelTurnResponse
turn (\v2.pinion.v1.Turn"ï
\fConversation

id (	
\bagent_id (	
snapshot_version (
snapshot_bytes (
active_turn_id (	
\rturns_waiting (.

created_at\x07 (\v2.google.protobuf.Timestamp0
\flast_turn_at\b (\v2.google.protobuf.Timestamp"K
GetConversationRequest
conversation_id (	
include_snapshot (\b"Z
GetConversationResponse-
\fconversation (\v2.pinion.v1.Conversation
\bsnapshot (\f"S
ListConversationsRequest
	page_size (

page_token (	
\bagent_id (	"d
ListConversationsResponse.
\rconversations (\v2.pinion.v1.Conversation
next_page_token (	"4
DeleteConversationRequest
conversation_id (	"
DeleteConversationResponse*Û

TurnStatus\x1B
TURN_STATUS_UNSPECIFIED\0
TURN_STATUS_PENDING
TURN_STATUS_CLAIMED
TURN_STATUS_RUNNING
TURN_STATUS_COMPLETED
TURN_STATUS_FAILED
TURN_STATUS_TIMEOUT
TURN_STATUS_CANCELLED\x072¥
\vTurnServiceF
	StartTurn\x1B.pinion.v1.StartTurnRequest.pinion.v1.StartTurnResponseE
\x07GetTurn.pinion.v1.GetTurnRequest.pinion.v1.GetTurnResponse"H
	WatchTurn\x1B.pinion.v1.WatchTurnRequest.pinion.v1.WatchTurnResponse0K
	ListTurns\x1B.pinion.v1.ListTurnsRequest.pinion.v1.ListTurnsResponse"I

CancelTurn.pinion.v1.CancelTurnRequest.pinion.v1.CancelTurnResponse]
GetConversation!.pinion.v1.GetConversationRequest".pinion.v1.GetConversationResponse"c
ListConversations#.pinion.v1.ListConversationsRequest$.pinion.v1.ListConversationsResponse"a
DeleteConversation$.pinion.v1.DeleteConversationRequest%.pinion.v1.DeleteConversationResponsebproto3`),[C,B,U,V,q]);var T1=y(jr,0),b2=E(T1),Jr=G(jr,0);var x1=1e3,Xr=2500,Fu=0,I1=u0(Date.now());function v2(){setInterval(()=>{I1.value=w1()},x1)}function w1(){return Date.now()+Fu}function zr(e){let n=Date.parse(e??"");if(Number.isNaN(n))return;let u=n+500-Date.now();Math.abs(u-Fu)>Xr&&(Fu=Math.abs(u)>Xr?u:0)}function Qr(){try{new Headers}catch{throw new Error("connect-web requires the fetch API. Are you running on an old version of Node.js? Node.js is not supported in Connect for Web - please stay tuned for Connect for Node.")}}var he=function(e){return this instanceof he?(this.v=e,this):new he(e)},O1=function(e,n,u){if(!Symbol.asyncIterator)throw new TypeError("Symbol.asyncIterator is not defined.");var t=u.apply(e,n||[]),o,r=[];return o=Object.create((typeof AsyncIterator=="function"?AsyncIterator:Object).prototype),s("next"),s("throw"),s("return",i),o[Symbol.asyncIterator]=function(){return this},o;function i(p){return function(m){return Promise.resolve(m).then(p,d)}}function s(p,m){t[p]&&(o[p]=function(h){return new Promise(function(b,g){r.push([p,h,b,g])>1||a(p,h)})},m&&(o[p]=m(o[p])))}function a(p,m){try{c(t[p](m))}catch(h){_(r[0][3],h)}}function c(p){p.value instanceof he?Promise.resolve(p.value.v).then(l,d):_(r[0][2],p)}function l(p){a("next",p)}function d(p){a("throw",p)}function _(p,m){p(m),r.shift(),r.length&&a(r[0][0],r[0][1])}},Zr={redirect:"error"};function Mu(e){var n;Qr();let u=(n=e.useBinaryFormat)!==null&&n!==void 0?n:!1;return{async unary(t,o,r,i,s,a){let{serialize:c,parse:l}=tn(t,u,e.jsonOptions,e.binaryOptions);return r=r===void 0?e.defaultTimeoutMs:r<=0?void 0:r,await Du({interceptors:e.interceptors,signal:o,timeoutMs:r,req:{stream:!1,service:t.parent,method:t,requestMethod:"POST",url:nn(e.baseUrl,t),header:an(t.methodKind,u,r,i,!1),contextValues:a??Ze(),message:s},next:async d=>{var _;let p=e.useHttpGet===!0&&t.idempotency===Le.NO_SIDE_EFFECTS,m=null;p?d=Ou(d,c(d.message),u):m=c(d.message);let b=await((_=e.fetch)!==null&&_!==void 0?_:globalThis.fetch)(d.url,Object.assign(Object.assign({},Zr),{method:d.requestMethod,headers:d.header,signal:d.signal,body:m})),{isUnaryError:g,unaryError:S}=cn(t.methodKind,u,b.status,b.headers);if(g)throw pe(await b.json(),Su(...rn(b.headers)),S);let[O,w]=rn(b.headers);return{stream:!1,service:t.parent,method:t,header:O,message:u?l(new Uint8Array(await b.arrayBuffer())):du(t.output,await b.json(),un(e.jsonOptions)),trailer:w}}})},async stream(t,o,r,i,s,a){let{serialize:c,parse:l}=tn(t,u,e.jsonOptions,e.binaryOptions);function d(p,m,h,b){return O1(this,arguments,function*(){let S=Eu(p).getReader(),O=!1;for(;;){let w=yield he(S.read());if(w.done)break;let{flags:i0,data:q0}=w.value;if((i0&ze)===ze)throw new T("protocol error: received unsupported compressed output",v.Internal);if((i0&on)===on){O=!0;let d0=wu(q0);if(d0.error){let J=d0.error;throw h.forEach((I0,t0)=>{J.metadata.append(t0,I0)}),J}d0.metadata.forEach((J,I0)=>m.set(I0,J));continue}yield yield he(l(q0))}if("throwIfAborted"in b&&b.throwIfAborted(),!O)throw"missing EndStreamResponse"})}async function _(p){if(t.methodKind!="server_streaming")throw"The fetch API does not support streaming request bodies";let m=await p[Symbol.asyncIterator]().next();if(m.done==!0)throw"missing request message";return Ru(0,c(m.value))}return r=r===void 0?e.defaultTimeoutMs:r<=0?void 0:r,await Au({interceptors:e.interceptors,timeoutMs:r,signal:o,req:{stream:!0,service:t.parent,method:t,requestMethod:"POST",url:nn(e.baseUrl,t),header:an(t.methodKind,u,r,i,!1),contextValues:a??Ze(),message:s},next:async p=>{var m;let b=await((m=e.fetch)!==null&&m!==void 0?m:globalThis.fetch)(p.url,Object.assign(Object.assign({},Zr),{method:p.requestMethod,headers:p.header,signal:p.signal,body:await _(p.message)}));if(cn(t.methodKind,u,b.status,b.headers),b.body===null)throw"missing response body";let g=new Headers;return Object.assign(Object.assign({},p),{header:b.headers,trailer:g,message:d(b.body,g,b.headers,p.signal)})}})}}}var D1=x(btoa(`
pinion/v1/event.proto	pinion.v1"â
Event
cursor (	&
at (\v2.google.protobuf.Timestamp\f
kind (	\r
actor (	
run_id (	

watcher_id (	
	device_id\x07 (	%
data\b (\v2.google.protobuf.Struct&
source	 (\v2.pinion.v1.EventSource"X
\vEventSource
\x07address (	
\btoken_id (	

user_agent (	

request_id (	"T
WatchEventsRequest
\fafter_cursor (	\r
kinds (	
include_transient (\b"¹
TransientEvent\f
kind (	&
at (\v2.google.protobuf.Timestamp
	device_id (	

replica_id (	
\rsession_epoch (
run_id (	

watcher_id\x07 (	
\x07attempt\b ("
WatchEventsResync"´
WatchEventsResponse!
event (\v2.pinion.v1.EventH\0
cursor (	H\0.
	transient (\v2.pinion.v1.TransientEventH\0.
resync (\v2.pinion.v1.WatchEventsResyncH\0B\b
update"Y
ListEventsRequest
	page_size (

page_token (	\r
kinds (	
run_id (	"O
ListEventsResponse 
events (\v2.pinion.v1.Event
next_page_token (	2®
\fEventServiceN
\vWatchEvents.pinion.v1.WatchEventsRequest.pinion.v1.WatchEventsResponse0N

ListEvents.pinion.v1.ListEventsRequest.pinion.v1.ListEventsResponse"bproto3`),[C,n0,U]);var ei=G(D1,0);function ni(e){return 400+Math.random()*Math.min(15e3,400*2**e)}function ui(e,n){return new Promise(u=>{let t=()=>{clearTimeout(o),removeEventListener("online",t),n.removeEventListener("abort",t),u()},o=setTimeout(t,e);addEventListener("online",t),n.addEventListener("abort",t),n.aborted&&t()})}function a_(e,n){let u=new AbortController,t=setTimeout(()=>u.abort(),n);return{signal:AbortSignal.any([e,u.signal]),heard(){clearTimeout(t),t=setTimeout(()=>u.abort(),n)},stop:()=>clearTimeout(t)}}var A1=2e4,L1=3,$0=u0("asking"),B0=u0(void 0),k1=u0(""),Wu=u0("");async function U1(){for(let e=0;;e++)try{let n=await gn.getSignInOptions({});if(k1.value=n.oidcName,!n.signedIn){B0.value=void 0,$0.value="out";return}B0.value=await gn.getCaller({}),$0.value="in";return}catch(n){if(!ri(n)){B0.value=void 0,$0.value="out";return}Wu.value=W1(n),await ui(ni(e),new AbortController().signal)}}async function N_(e){let[n,u]=Object.entries(e)[0],t=/^(?:pin_[a-z]+_)?([a-z][a-z0-9]{0,15})_[0-9A-Za-z]{30}/.exec(u)?.[1];await gn.signIn({credential:{case:n,value:u}},t?{headers:{"pinion-cell":t}}:{}),Wu.value="",$0.value="asking",await U1()}async function T_(){await gn.signOut({}).catch(()=>{}),oi("")}function oi(e){Wu.value=e,B0.value=void 0,$0.value="out"}var C1=e=>B0.value?.scopes.includes(e)??!1,P1="local",x_=()=>B0.value?.orgId===P1&&C1("admin"),ti=[],Gu=0;async function F1(e){Gu>=L1?await new Promise(n=>ti.push(n)):Gu++;try{return await e()}finally{let n=ti.shift();n?n():Gu--}}var M1=e=>async n=>{try{let u=await(n.stream?e(n):F1(()=>e(n)));return zr(u.header.get("date")),u}catch(u){throw n.method.name!=="SignIn"&&n.method.name!=="GetCaller"&&G1(u),u}};function G1(e){let{code:n}=T.from(e);n===v.Unauthenticated&&$0.value==="in"&&oi("You were signed out: the sign-in has expired or was ended.")}var r0=Mu({baseUrl:new URL(".",location.href).href.replace(/\/$/,""),useBinaryFormat:!0,defaultTimeoutMs:A1,interceptors:[M1]}),I_=Q(Hr,r0),w_=Q(qr,r0),O_=Q(Br,r0),D_=Q(ei,r0),A_=Q(Vr,r0),L_=Q(Jr,r0),k_=Q(Kr,r0),U_=Q($r,r0),gn=Q(Yr,r0),C_=e=>Q(e,r0),P_=e=>({signal:e,timeoutMs:0});function W1(e){let{code:n,rawMessage:u}=T.from(e);return ri(e)?"The server does not answer. It is tried again by itself.":n===v.PermissionDenied?`You may not do that: ${u}`:n===v.ResourceExhausted?`Too much at once: ${u}`:n===v.Aborted?`Somebody else was faster: ${u}`:u.charAt(0).toUpperCase()+u.slice(1)}function ri(e){let{code:n,cause:u}=T.from(e);return n===v.Unavailable||n===v.DeadlineExceeded||u instanceof TypeError}var F_=e=>T.from(e).code===v.PermissionDenied,M_=e=>T.from(e).code===v.NotFound;var V1=Symbol.for("pv"),$1=0;function V_(e,n,u,t,o,r){n||(n={});var i,s,a=n;if("ref"in a&&typeof e!="function")for(s in a={},n)s=="ref"?i=n[s]:a[s]=n[s];var c={type:e,props:a,key:u,ref:i,__k:null,__:null,__b:0,__e:null,__c:null,constructor:V1,__v:--$1,__i:-1,__u:0};return(o||r)&&(c.__source=o,c.__self=r),I.vnode&&I.vnode(c),c}export{a0 as a,B1 as b,_i as c,K1 as d,bi as e,Te as f,Y1 as g,v as h,R as i,k as j,y as k,E as l,x as m,U as n,bp as o,B as p,Sp as q,U0 as r,n0 as s,zn as t,Js as u,du as v,T as w,G as x,u0 as y,dn as z,Ya as A,C as B,Wm as C,Vm as D,Ym as E,jm as F,Zm as G,ed as H,nd as I,ud as J,td as K,od as L,rd as M,id as N,sd as O,md as P,dd as Q,_d as R,bd as S,hd as T,gd as U,vd as V,Sd as W,wd as X,Od as Y,Dd as Z,Ad as _,Wd as $,Vd as aa,Jd as ba,Xd as ca,n2 as da,u2 as ea,a2 as fa,c2 as ga,b2 as ha,ni as ia,ui as ja,a_ as ka,I1 as la,v2 as ma,w1 as na,$0 as oa,B0 as pa,k1 as qa,Wu as ra,U1 as sa,N_ as ta,T_ as ua,C1 as va,x_ as wa,G1 as xa,I_ as ya,w_ as za,O_ as Aa,D_ as Ba,A_ as Ca,L_ as Da,k_ as Ea,U_ as Fa,gn as Ga,C_ as Ha,P_ as Ia,W1 as Ja,ri as Ka,F_ as La,M_ as Ma,V_ as Na};
