import{ta as n}from"./chunk-TC2BC45F.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
